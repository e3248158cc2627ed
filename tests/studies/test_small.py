"""Small networks of the studies after Sagun et al."""

import ast
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from curvscope import studies
from curvscope.studies.sagun import _sagun_data as sagun_data
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
