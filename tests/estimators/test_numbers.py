"""Estimates used as numbers with an error; densities and diagonals as their numbers."""

import json

import numpy as np
import pytest
import torch

import curvscope as cs
from curvscope.estimators import Estimate

A = torch.diag(torch.linspace(-1.0, 3.0, 60, dtype=torch.float64))
T = Estimate(10.0, 0.5, products=40)


def test_unpacks_formats_and_compares():
    value, stderr = T
    assert (value, stderr) == (10.0, 0.5)
    assert f"{T:.2f}" == "10.00"
    assert f"{T}" == str(T)
    assert T > 9
    assert 9 < T <= 10.0
    assert max(T, Estimate(3.0, 0.1, 1)).value == 10.0
    assert (T.lower, T.upper) == T.interval
    assert np.asarray(T) == 10.0


def test_exact_numbers_scale_value_and_error():
    for found, value, stderr in ((T / 4, 2.5, 0.125), (T * -2, -20, 1.0), (2 * T, 20, 1.0), (-T, -10, 0.5), (T - 1, 9, 0.5)):
        assert (found.value, found.stderr) == (value, stderr)
    assert (1 - T).value == -9
    assert (T / np.float64(2)).value == (T / torch.tensor(2.0)).value == 5
    assert 20 / T == 2
    assert T / T == 1
    assert (T + T).stderr == pytest.approx(0.5**0.5)
    assert abs(-T).value == 10
    with pytest.raises(TypeError):
        T * "a"


def test_plain_data_and_hints():
    assert json.loads(json.dumps(T.to_dict()))["stderr"] == 0.5
    with pytest.raises(AttributeError, match="use estimate"):
        _ = T.error
    assert repr(T) == str(T)
    assert "<pre>" in T._repr_html_()


def test_diagonal_and_norm():
    diagonal = cs.diagonal(A)
    assert np.allclose(np.asarray(diagonal), A.diagonal().numpy())
    assert torch.equal(diagonal.values, diagonal.value)
    assert len(diagonal) == 60
    norm = cs.spectral_norm(A)
    value, upper = norm
    assert value <= 3 + 1e-9 <= upper
    assert f"{norm:.1f}" == f"{norm.value:.1f}"
    assert 2 / norm == 2 / norm.value


def test_density_gives_its_numbers_by_one_word_and_at_points():
    density = cs.density(A)
    grid, values = density
    assert values is density.values is density.density
    middle = float(grid[500])
    assert density(middle) == float(values[500])
    assert density(100.0) == 0.0
    assert torch.equal(density(grid), values)
    assert np.trapezoid(np.asarray(density), grid) == pytest.approx(1, abs=0.1)


def test_curve_at_several_k_and_as_plain_data():
    solution = cs.eigsh(A, k=10)
    curve = cs.overlap(solution, cs.masks.from_order(torch.arange(60).flip(0)))
    assert torch.equal(curve.at([1, 5, 10]), curve.value[[0, 4, 9]])
    assert curve.at(5) == float(curve.values[4])
    with pytest.raises(ValueError, match="k=11: the curve goes from 1 to 10"):
        curve.at([1, 11])
    with pytest.raises(AttributeError, match="use curve"):
        _ = curve.baseline
    assert len(str(curve).splitlines()) < 20
    pytest.importorskip("pandas")
    assert list(curve.to_pandas().columns) == ["k", "overlap", "chance"]
