"""Beyond the paper: the networks are what they say, shares add up, pruning removes what it should, errors are over seeds."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.problems import _mnist16 as mnist16
from curvscope.store import Run
from curvscope.studies.beyond import _beyond as beyond
from curvscope.studies.beyond._beyond_page import over_seeds
from curvscope.studies.engine import Stages


@pytest.fixture
def stages(tmp_path):
    return Stages(Run.create(tmp_path / "study", kind="study", options={}), progress=False)


def test_scaled_networks():
    assert sum(p.numel() for p in beyond.tanh_network(5, 20, 0).parameters()) == 7030
    problem = cs.problems.get("cifar10_3c3d")
    whole, quarter = (beyond.scaled_3c3d(problem, share, 3) for share in (1.0, 0.25))
    assert [p.shape for p in whole.parameters()] == [p.shape for p in problem.model().parameters()]
    assert quarter[0].out_channels == 16
    assert quarter(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert torch.equal(beyond.tanh_network(2, 5, 1)[1].weight, beyond.tanh_network(2, 5, 1)[1].weight)


def test_shares_of_the_kinds_of_layer_add_up(stages):
    config = beyond.BeyondConfig(k=3, tol=0.1)
    found = beyond._kinds(config, 0, 0, stages)
    for share in ("of_parameters", "of_eigenspace", "of_mask"):
        assert sum(kind[share] for kind in found["kinds"].values()) == pytest.approx(1)
    assert found["kinds"]["head"]["of_parameters"] == pytest.approx(96 * 64 / 116_480)
    assert found["size"] == 116_480


def test_pruning_removes_the_last_of_each_ranking(stages, monkeypatch):
    monkeypatch.setattr(mnist16, "WIDTHS", (256, 3, 10))
    problem = cs.problems.get("mnist16")
    config = beyond.BeyondConfig(k=3, tol=1e-2, trained=2, sparsities=(0.5, 1.0), probes=8)
    found = beyond._pruned(config, problem, 1, stages)
    whole = {way: points[0] for way, points in found["ways"].items()}
    assert set(whole) == set(beyond.RANKINGS)
    assert len({point["loss"] for point in whole.values()}) == 1
    # nothing is left: constant zero logits
    for points in found["ways"].values():
        assert points[-1]["loss"] == pytest.approx(torch.tensor(10.0).log().item(), rel=1e-5)
    # by magnitude, half of them: by hand
    model = problem.model(1)
    recorder = cs.Recorder(model, [2])
    beyond.train(problem, model, recorder, seed=1)
    vector = nn.utils.parameters_to_vector(recorder.load(2, model).parameters()).detach()
    edge = vector.abs().sort().values[len(vector) // 2]
    nn.utils.vector_to_parameters(torch.where(vector.abs() >= edge, vector, 0.0), model.parameters())
    assert found["ways"]["magnitude"][1]["loss"] == pytest.approx(beyond.evaluate(problem, model)[0], rel=1e-3)


def test_saliencies_are_those_of_the_exact_diagonal(stages, monkeypatch):
    """With a tenth of the products that the diagonal has entries, OBD keeps nearly what it would with all of them."""
    monkeypatch.setattr(mnist16, "WIDTHS", (256, 3, 10))
    problem = cs.problems.get("mnist16")
    config = beyond.BeyondConfig(k=3, tol=1e-2, trained=20, sparsities=(0.5, 0.8))
    few, all_of_them = (beyond._pruned(replace(config, probes=count), problem, 1, stages) for count in (80, 811))
    model = beyond._trained(problem, problem.model(1), 20, 1, stages)
    G = cs.ggn(model, problem.criterion, problem.curvature_batches())
    saliency = G.values().square() * (G @ torch.eye(811)).diagonal()
    vector = torch.where(saliency >= saliency.sort().values[811 - round(0.5 * 811)], G.values(), 0.0)
    nn.utils.vector_to_parameters(vector, model.parameters())
    exact = beyond.evaluate(problem, model)[0]
    way = "OBD, GGN diagonal"
    assert all_of_them["ways"][way][1]["loss"] == pytest.approx(exact, rel=1e-3)
    assert few["ways"][way][1]["loss"] == pytest.approx(exact, rel=1e-2)


def test_the_page_says_what_did_not_converge(stages):
    config = beyond.BeyondConfig(seeds=(0,), k=2, tol=1e-3, steps=(), widths=(3, 5), depths=(), pruned=(), trained=2)
    numbers = beyond.measure(stages, config, None)
    assert "all 2 solves to relative residuals of 0.001" in beyond.document({**numbers, "preset": "none"}).summary
    numbers["ablation"]["width 3"][0]["status"] = "partly"
    page = beyond.document({**numbers, "preset": "none"})
    assert "1 of 2 solves" in page.summary
    assert page.highlights[0][0] == "width 3 to 5: overlap over chance"


def test_means_and_their_errors():
    assert over_seeds([2.0]) == (2.0, 0.0)
    middle, error = over_seeds([1.0, 3.0])
    assert (middle, error) == (2.0, pytest.approx(2**0.5 / 2**0.5))
