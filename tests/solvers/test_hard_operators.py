"""Operators that are not what they should be, or at the ends of the floating-point range: named, never answered wrongly."""

from dataclasses import replace

import pytest
import torch

import curvscope as cs
from curvscope.errors import NotHermitian


class ByProducts:
    """A matrix known by its products only."""

    def __init__(self, matrix):
        self.matrix, self.shape, self.dtype = matrix, matrix.shape, matrix.dtype

    def __matmul__(self, block):
        return self.matrix @ block


@pytest.mark.parametrize(("dtype", "skew"), [(torch.float64, 1e-4), (torch.float32, 0.1)])
def test_an_operator_that_is_not_symmetric_is_refused_by_all(dtype, skew, make_symmetric):
    """Its eigenvalues are not within the residuals: what is called converged, or complete, would be wrong."""
    S, _ = make_symmetric(torch.linspace(-1, 1, 200, dtype=torch.float64))
    turned = torch.randn(200, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tril(-1)
    A = ByProducts((S + skew * (turned - turned.T) / turned.norm() * S.norm()).to(dtype))
    for method in ("krylov", "exact"):
        with pytest.raises(NotHermitian, match="not Hermitian"):
            cs.eigsh(A, k=3, method=method)
    solution = cs.eigsh(ByProducts(S.to(dtype)), k=3)
    with pytest.raises(NotHermitian, match="not Hermitian"):
        cs.certify(A, replace(solution, provenance={}))
