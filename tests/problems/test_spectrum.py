"""Operators with known spectra against the dense solver."""

from typing import get_args

import pytest
import torch

from curvscope.errors import InvalidArgument
from curvscope.problems import spectrum
from curvscope.problems._spectrum import SpectrumKind

F64, C128 = torch.float64, torch.complex128


@pytest.mark.parametrize("dtype", [F64, C128])
@pytest.mark.parametrize("kind", get_args(SpectrumKind))
def test_all_values_and_the_first_vectors(kind, dtype):
    A = spectrum(kind, 60, rank=6, dtype=dtype, negative=0.0 if kind == "plus_minus" else 0.4, scale=3.0)
    matrix = A @ torch.eye(60, dtype=dtype)
    torch.testing.assert_close(matrix, matrix.mH)
    torch.testing.assert_close(torch.linalg.eigvalsh(matrix), A.values.sort().values)
    assert bool((A.values.abs().diff() <= 0).all())
    U = A.exact_eigenvectors(6).to_tensor()
    torch.testing.assert_close(U.mH @ U, torch.eye(6, dtype=dtype))
    torch.testing.assert_close(matrix @ U, U * A.values[:6])


@pytest.mark.parametrize("dtype", [F64, C128])
@pytest.mark.parametrize("shape", [(50, 30), (30, 50)])
def test_rectangular(shape, dtype):
    A = spectrum("exponential", shape[0], columns=shape[1], rank=4, dtype=dtype)
    matrix = A @ torch.eye(shape[1], dtype=dtype)
    torch.testing.assert_close(torch.linalg.svdvals(matrix), A.values)
    U, V = A.exact_eigenvectors(5).to_tensor(), A.exact_right_vectors(5).to_tensor()
    torch.testing.assert_close(matrix @ V, U * A.values[:5])


def test_vectors_are_spread_over_the_coordinates_and_seeds_differ():
    A, B = (spectrum("power", 2000, seed=seed) for seed in (0, 1))
    u, v = A.exact_eigenvectors(1).to_tensor(), B.exact_eigenvectors(1).to_tensor()
    assert float(u.abs().max()) < 6 / 2000**0.5  # a Gaussian vector's largest of 2,000 entries is about 3.5
    assert abs(float((u * v).sum())) < 6 / 2000**0.5
    assert A.fingerprint != B.fingerprint


def test_signs_are_spread_and_the_first_is_positive():
    values = spectrum("power", 1000, rank=1, negative=0.3).values
    assert float((values < 0).double().mean()) == pytest.approx(0.3, abs=0.002)
    assert values[0] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "cubic"}, "kind='cubic': choose one of power"),
        ({"size": 0}, "size=0"),
        ({"rank": 51}, "rank=51: choose 1 to 50"),
        ({"negative": 2.0}, "negative=2.0"),
        ({"columns": 20, "negative": 0.5}, "only square operators have signs"),
        ({"columns": 20, "kind": "low_rank_diagonal"}, "only square operators"),
        ({"dtype": torch.int64}, "floating-point"),
    ],
)
def test_bad_requests(arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        spectrum(**{"kind": "power", "size": 50, **arguments})
    with pytest.raises(InvalidArgument, match="k=51"):
        spectrum("power", 50).exact_eigenvectors(51)
    with pytest.raises(InvalidArgument, match="only the 10 outlying"):
        spectrum("low_rank_diagonal", 50).exact_eigenvectors(11)
