"""Small networks of the studies after Sagun et al."""

import ast
import copy
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope import studies
from curvscope.studies.engine import claim, claims_table, share_verdict, verdict
from curvscope.studies.sagun import _sagun_data as sagun_data, _sagun_split as sagun_split
from curvscope.studies.sagun._clusters import covariance_spectrum
from curvscope.studies.sagun._paths import bezier, flatness, line, parameters_of
from curvscope.studies.sagun._sagun_data import CENTERS, DataConfig
from curvscope.studies.sagun._small import blobs, descend, descend_together, hessian_of, mlp

HOW = {"rate": 0.5, "steps": 400, "until": 0.03}


def networks(count):
    return [mlp((2, 4, 4, 2), nn.ReLU, seed) for seed in range(count)]


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("until", [0.03, 0.0], ids=["until the gradient is small", "to the last update"])
def test_networks_descend_together_as_alone(until):
    data, how = blobs(CENTERS, 0.4, 20, seed=1), HOW | {"until": until, "steps": 400 if until else 25}
    alone, together = networks(5), networks(5)
    expected = [descend(model, data, **how) for model in alone]
    assert descend_together(together, data, **how) == expected
    assert len(set(expected)) > 1 or not until
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(parameters(other), parameters(one), rtol=1e-9, atol=1e-11)


def test_top_eigenvalues_of_many_starts():
    config = DataConfig(deviation_width=4, gradient_norm=0.03, small_steps=400)
    data, expected = blobs(CENTERS, config.deviations[0], 100, config.seed), []
    for seed in (7, 8, 9):
        model = mlp((2, 4, 4, 2), nn.ReLU, seed)
        descend(model, data, rate=0.5, steps=400, until=0.03)
        expected.append(float(torch.linalg.eigvalsh(hessian_of(model, data) @ torch.eye(42).double())[-1]))
    assert sagun_data._starts(range(7, 10), config)["tops"] == pytest.approx(expected, rel=1e-8)


def test_reports_name_their_subjects_not_a_numbering():
    """Codes such as T10 or S3, of papers or ours, mean nothing to a reader of a report."""
    code = re.compile(r"\b[TS]\d{1,2}\b")
    for file in Path(studies.__file__).parent.rglob("*.py"):
        texts = [node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)]
        assert [text for text in texts if isinstance(text, str) and code.search(text)] == [], file


def test_remainder_is_the_curvature_of_the_outputs():
    """E from its definition against H - G, and against finite differences of the weighted outputs' gradient."""
    pair, model = blobs(CENTERS, 0.4, 5, seed=1), mlp((2, 3, 2), nn.Tanh, 2)
    E = sagun_split.remainder(model, pair)
    setting = (model, nn.CrossEntropyLoss(), [pair])
    identity = torch.eye(len(E), dtype=torch.float64)
    torch.testing.assert_close(E, (cs.hessian(*setting) - cs.ggn(*setting)) @ identity, rtol=1e-9, atol=1e-12)
    slopes = (model(pair[0]).softmax(1) - nn.functional.one_hot(pair[1], 2)).detach() / len(pair[1])

    def gradient(moved):
        other = copy.deepcopy(model)
        torch.nn.utils.vector_to_parameters(parameters(other).detach() + moved, other.parameters())
        return torch.cat([g.flatten() for g in torch.autograd.grad((other(pair[0]) * slopes).sum(), list(other.parameters()))])

    for i in (0, 4, len(E) - 1):
        step = 1e-5 * identity[i]
        torch.testing.assert_close(E[i], (gradient(step) - gradient(-step)) / 2e-5, rtol=1e-6, atol=1e-8)


def test_covariance_of_gradients_against_the_dense_matrix():
    pair, model = blobs(CENTERS, 0.6, 6, seed=3), mlp((2, 3, 2), nn.Tanh, 1)
    rows = []
    for x, y in zip(*pair, strict=True):
        loss = nn.functional.cross_entropy(model(x[None]), y[None])
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]))
    dense = torch.linalg.eigvalsh(torch.cov(torch.stack(rows).mT, correction=0)).flip(0)
    torch.testing.assert_close(covariance_spectrum(model, pair), dense[: len(rows)].clamp(min=0), rtol=1e-9, atol=1e-12)


def test_a_curve_passes_where_a_line_does_not(monkeypatch):
    """Two solutions that are permutations of each other: the line has a barrier, the curve a lower one."""
    pair = blobs(CENTERS, 0.3, 30, seed=0)
    model = mlp((2, 6, 2), nn.Tanh, 0)
    descend(model, pair, rate=0.5, steps=300)
    first = parameters_of(model)
    order = torch.tensor([3, 4, 5, 0, 1, 2])
    second = {"0.weight": first["0.weight"][order], "0.bias": first["0.bias"][order]}
    second |= {"2.weight": first["2.weight"][:, order], "2.bias": first["2.bias"]}
    straight, curved = line(model, (pair, pair), first, second), bezier(model, (pair, pair), (first, second), steps=200, seed=0)
    assert straight["barrier"] > 0.03
    assert curved["barrier"] < 0.5 * straight["barrier"]
    assert curved["loss"][0] == pytest.approx(curved["loss"][-1])  # both ends are the same network
    assert curved["test_loss"] == curved["loss"]
    monkeypatch.setattr("curvscope.studies.sagun._paths.PERTURBED", 1.0)
    flat = flatness(model, pair, first, seed=0)
    assert flat["loss"] == pytest.approx(curved["loss"][0])
    assert flat["rise"] > flat["stderr"] > 0


@pytest.mark.parametrize(
    ("values", "marks", "expected"),
    [
        ([1.0, 1.1, 0.9, 1.0, 1.05], {"least": 0.5}, True),
        ([1.0, 1.1, 0.9, 1.0, 1.05], {"most": 0.5}, False),
        ([0.4, 0.7, 0.5], {"least": 0.5}, "undecided"),  # the mean is above the mark, its interval is not
        ([0.51], {"least": 0.5}, "undecided"),  # one network decides nothing
        ([0.3, 0.9], {}, None),
    ],
)
def test_a_verdict_needs_the_whole_interval(values, marks, expected):
    assert verdict(values, **marks) == expected


def test_verdicts_of_shares_are_those_of_binomial_intervals():
    assert share_verdict(3, 3, 0.8) == "undecided"
    assert share_verdict(20, 20, 0.8) is True
    assert share_verdict(2, 20, 0.8) is False
    assert share_verdict(0, 0, 0.8) == "undecided"
    table = claims_table([claim("a", "b", "c", verdict([1.0], least=0.0))])
    assert table.rows[0][-1] == "NOT DECIDED"
