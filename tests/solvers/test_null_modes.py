"""Null spaces and fast decay: certified without a complaint about symmetry, searched without growing vectors."""

import pytest
import torch

import curvscope as cs


def hilbert(size: int) -> torch.Tensor:
    """1 / (i + j + 1), whose eigenvalues fall below rounding at once."""
    i = torch.arange(size, dtype=torch.float64)
    return 1 / (i[:, None] + i + 1)


class Products:
    """A matrix known by its products only, so that its symmetry is assumed."""

    def __init__(self, matrix: torch.Tensor) -> None:
        self.matrix, self.shape, self.dtype, self.device = matrix, matrix.shape, matrix.dtype, matrix.device

    def __matmul__(self, block: torch.Tensor) -> torch.Tensor:
        return self.matrix @ block


@pytest.mark.parametrize("rank", [3, 40])
def test_null_vectors_are_certified(rank):
    """Products of null vectors are rounding, which is no sign of a matrix that is not symmetric."""
    basis = torch.linalg.qr(torch.randn(150, rank, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)).Q
    operator = Products(basis @ basis.T)
    solution = cs.eigsh(operator, 5, which="SA", method="krylov", progress=False)
    assert float(solution.eigenvalues.abs().max()) < 1e-12
    assert cs.certify(operator, solution, progress=False).certificate is not None


def test_a_matrix_that_is_not_symmetric_is_still_refused():
    """By its first products, also where they are those of a null space."""
    matrix = torch.zeros(100, 100, dtype=torch.float64)
    matrix[:50, 50:] = 1.0
    with pytest.raises(cs.errors.NotHermitian):
        cs.eigsh(Products(matrix), 3, method="krylov", progress=False)


@pytest.mark.parametrize("size", [300, 700])
def test_searches_among_rounding_stay_finite(size):
    """Search vectors lose orthogonality where everything left is rounding; none of them may grow."""
    solution = cs.eigsh(hilbert(size), 5, which="SA", method="krylov", progress=False)
    assert float(solution.eigenvalues.abs().max()) < 1e-12
    assert torch.isfinite(solution.residual_norms).all()
