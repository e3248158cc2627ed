"""Every pinned definition: initial parameters, and the check against published logs (here: made ones)."""

import json

import pytest
import torch

import curvscope as cs
from curvscope.errors import InvalidArgument
from curvscope.problems import as_pinned, compare_with_reference
from curvscope.problems._base import top_digest
from curvscope.problems._pinned import initial_magnitudes

SIZES = {
    "mnist16": 7_030,
    "cifar10_3c3d": 895_210,
    "cifar100_allcnnc": 1_387_108,
    "imagenet_resnet18": 11_689_512,
    "tinygpt": 116_480,
    "textgpt": 10_942_464,
}


@pytest.mark.parametrize("name", SIZES)
def test_initial_parameters_are_the_pinned_ones(name):
    problem = cs.problems.get(name)
    before = torch.random.get_rng_state()
    assert len(initial_magnitudes(problem)) == SIZES[name]
    assert as_pinned(problem)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert set(problem.definition) == {"network", "initialisation", "training", "BatchNorm", "dropout", "curvature"}


def test_another_seed_is_not_as_pinned(monkeypatch):
    problem = cs.problems.get("mnist16")
    other = problem.model(seed=7)
    monkeypatch.setattr(problem, "model", lambda: other)
    assert not as_pinned(problem)


def test_comparison_with_published_places(tmp_path):
    problem = cs.problems.get("mnist16")
    top = initial_magnitudes(problem).topk(20).indices.tolist()
    (tmp_path / "other.json").write_text(json.dumps({"D": 3}))
    log = {"D": 7030, "steps": {"0": {"top20_abs_params_index_set": sorted(top)}}}
    (tmp_path / "log.json").write_text(json.dumps(log))
    found = compare_with_reference(problem, tmp_path)
    assert (found["k"], found["agree"], found["same"]) == (20, 20, True)
    log["steps"]["0"]["top20_abs_params_index_set"] = [*top[:-1], next(i for i in range(7030) if i not in top)]
    (tmp_path / "log.json").write_text(json.dumps(log))
    found = compare_with_reference(problem, tmp_path / "log.json")
    assert (found["agree"], found["same"]) == (19, False)
    with pytest.raises(InvalidArgument, match="no top-magnitude index set for D = 895210"):
        compare_with_reference(cs.problems.get("cifar10_3c3d"), tmp_path)
    with pytest.raises(InvalidArgument, match="does not exist"):
        compare_with_reference(problem, tmp_path / "nowhere")


def test_a_digest_is_of_a_set():
    assert top_digest(torch.tensor([5, 11])) == top_digest(torch.tensor([11, 5])) != top_digest(torch.tensor([51, 1]))


@pytest.mark.parametrize("name", ["mnist16"])
def test_batches_from_a_later_step_are_those_of_training(name):
    problem = cs.problems.get(name)
    whole, later = problem.train_batches(), problem.train_batches(start=18)  # in the second epoch
    for _ in range(18):
        next(whole)
    for _ in range(2):
        (x, y), (also_x, also_y) = next(whole), next(later)
        assert torch.equal(x, also_x)
        assert torch.equal(y, also_y)
