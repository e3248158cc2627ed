"""Overlap at scale: checkpoints that are loaded, an interrupted training, BatchNorm both ways, what is compared."""

import json

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument, RunNotFound
from curvscope.problems import _mnist16 as mnist16, _registry as registry
from curvscope.runs import Choices, operator_at_step, operator_of_problem
from curvscope.store import Run
from curvscope.studies.engine import Stages, published, recorded
from curvscope.studies.sketched_overlap import _overlap_at_scale as overlap_at_scale
from curvscope.studies.sketched_overlap._overlap_at_scale import ScaleConfig, _samples, measure
from curvscope.studies.sketched_overlap._overlap_at_scale_page import comparison_rows, document


@pytest.fixture
def stages(tmp_path):
    return Stages(Run.create(tmp_path / "study", kind="study", options={}), progress=False)


class Normed(mnist16.Mnist16):
    """A small network with BatchNorm."""

    name = "normed"

    def model(self, seed=None):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return nn.Sequential(nn.Flatten(), nn.Linear(256, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 10))


def test_interrupted_training_goes_on_to_the_same_bits(stages, tmp_path):
    problem = cs.problems.get("mnist16")
    whole, losses = recorded(stages, problem, (0, 5), seed=12345, every=2)
    assert whole.recorded == [0, 2, 4, 5]
    assert len(losses) == 6
    cut = Stages(Run.create(tmp_path / "cut", kind="study", options={}), progress=False)
    recorded(cut, problem, (0, 4), seed=12345, every=2)  # as if stopped after step 4
    again, others = recorded(cut, problem, (0, 5), seed=12345, every=2)
    assert others == losses
    for name, value in whole.state(5).items():
        assert torch.equal(value, again.state(5)[name])


def test_checkpoints_are_loaded_instead_of_training(stages, tmp_path):
    problem = cs.problems.get("mnist16")
    recorder = cs.Recorder(problem.model(seed=4), [7], path=tmp_path / "there")
    recorder.step(7)
    found, losses = recorded(stages, problem, (7,), seed=None, every=2, checkpoints=str(tmp_path / "there"))
    assert torch.equal(found.state(7)["1.weight"], problem.model(seed=4)[1].weight)
    assert losses == []
    with pytest.raises(RunNotFound, match="has no step 9"):
        recorded(stages, problem, (7, 9), seed=None, every=2, checkpoints=str(tmp_path / "there"))


def test_batchnorm_both_ways(stages, monkeypatch):
    monkeypatch.setitem(registry.PROBLEMS, "normed", Normed)
    config = ScaleConfig(
        problem="normed",
        steps=(3,),
        k=4,
        spare=3,
        num_outer=0,
        samples_per_class=3,
        statistics=("initial", "recorded"),
        random_masks=2,
    )
    numbers = measure(stages, config, None)
    assert set(numbers["checkpoints"]) == {"3 train", "3 train initial"}
    right, published_way = (numbers["checkpoints"][name] for name in ("3 train", "3 train initial"))
    problem = Normed()
    model = cs.Recorder(problem.model(), [3], path=stages.run.path / "parameters", resume=True).load(3, problem.model())
    for own, reset in ((right, False), (published_way, True)):
        if reset:
            model[2].reset_running_stats()
        H = cs.hessian(model, problem.criterion, _samples(problem, "train", 3), dtype=torch.float64)
        expected = cs.eigsh(H, 4, method="exact").eigenvalues
        assert own["eigenvalues"] == pytest.approx(expected.tolist(), rel=1e-3)
        assert own["curvature_loss"] == pytest.approx(H.objective.mean_loss, rel=1e-5)
    assert right["sketch"] is None
    page = document({**json.loads(json.dumps(numbers)), "preset": "none"})
    table = next(section.table for section in page.sections if section.title.startswith("BatchNorm"))
    assert table.rows[-1][1] == "4"
    assert table.rows[-1][2] != table.rows[-1][3]
    assert not list((stages.run.path / "eigs").iterdir())  # vectors went when they had been read


def test_a_run_on_a_problem_keeps_running_statistics(tmp_path, monkeypatch):
    """Certified or gone on with later, the operator is the trained network's, not one with the statistics of a new one."""
    monkeypatch.setitem(registry.PROBLEMS, "normed", Normed)
    H = operator_at_step(Normed(), 3, "train", Choices())
    options = {"problem": "normed", "split": "train", "matrix": "hessian"}
    run = Run.create(tmp_path / "run", kind="eigs", options=options)
    cs.eigsh(H, 2, method="krylov", tol=0.1, run=run)
    again = operator_of_problem(Run.open(run.path))
    assert torch.equal(again.objective.buffers["2.running_mean"], H.objective.buffers["2.running_mean"])
    assert float(H.objective.buffers["2.running_mean"].abs().max()) > 0
    assert again.fingerprint == H.fingerprint


def test_samples_and_statistics_that_cannot_be():
    problem = cs.problems.get("mnist16")
    ((x, y),) = _samples(problem, "test", 2)
    ((whole, labels),) = problem.curvature_batches("test")
    assert y.bincount().tolist() == [2] * 10
    assert torch.equal(x[y == 3], whole[labels == 3][:2])
    with pytest.raises(InvalidArgument, match="statistics='mean': choose 'recorded' or 'initial'"):
        overlap_at_scale._statistics(problem, ScaleConfig(statistics=("mean",)))


def test_published_ratios_are_compared_where_the_samples_are_the_papers():
    paper = published("cifar10")
    curve = [0.0] * 1000
    for k, value in zip(paper["k"], paper["steps"]["2000"]["test"]["overlap"], strict=True):
        curve[k - 1] = 2 * value
    own = {"overlap": {"value": curve[:200]}, "sketch": {"overlap": curve}}
    config = {"problem": "cifar10_3c3d", "samples_per_class": None, "splits": ["test"]}
    numbers = {"config": config, "problem": {"size": 895_210}, "checkpoints": {"2000 test": own}}
    rows = comparison_rows(numbers)
    assert [row["k"] for row in rows if row["method"] == "Krylov"] == [1, 10, 50, 100, 200]
    assert [row["k"] for row in rows if row["method"] == "sketch"] == [1, 10, 50, 100, 200, 500, 1000]
    assert all(row["measured"] == pytest.approx(2 * row["paper"]) for row in rows)
    # the published ratio to chance at k = 10, read off the paper's log
    assert next(row["paper"] for row in rows if row["k"] == 10) == pytest.approx(112.27, rel=1e-4)
    assert comparison_rows({**numbers, "config": {**config, "samples_per_class": 10}}) == []


def test_presets_are_the_papers_sizes():
    assert overlap_at_scale.PRESETS["paper"].steps == (0, 2000, 4000, 6000, 8000)
    sizes = {name: (c.num_outer, c.num_inner, c.splits) for name, c in overlap_at_scale.PRESETS.items()}
    assert sizes["paper"] == (1000, 2000, ("train", "test"))
    assert sizes["paper-cifar100"] == (1000, 2000, ("test",))
    assert sizes["paper-imagenet"] == (1500, 3000, ("test",))
