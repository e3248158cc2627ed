"""Residuals from fresh products, and what follows from them for the eigenvalues."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from curvscope.tall import TallMatrix


def residual_norms(
    multiply: Callable[[Tensor], Tensor], eigenvalues: Tensor, eigenvectors: TallMatrix, *, block_size: int = 32
) -> Tensor:
    """||A v_i - lambda_i v_i|| for every pair, from fresh products; float64 (k,).

    Args:
        multiply: the products, (D, b) to (D, b).
        eigenvalues: (k,).
        eigenvectors: (D, k), columns of norm one.
        block_size: columns multiplied at a time.

    Cost: k products; memory: three D x block_size blocks in double precision.

    >>> from curvscope.tall import InMemory
    >>> residual_norms(lambda x: 2 * x, torch.tensor([2.0, 1.0]), InMemory(torch.eye(3)[:, :2])).tolist()
    [0.0, 1.0]
    """
    norms = []
    for start in range(0, eigenvectors.shape[1], block_size):
        stop = min(start + block_size, eigenvectors.shape[1])
        vectors = eigenvectors.columns(start, stop)
        # Subtracted in double: in single the rounding of lambda v would hide residuals near the rounding unit.
        residual = multiply(vectors).double()
        residual -= vectors.double() * eigenvalues[start:stop].to(vectors.device)
        norms.append(residual.norm(dim=0).cpu())
    return torch.cat(norms) if norms else torch.zeros(0, dtype=torch.float64)


def eigenvalue_intervals(eigenvalues: Tensor, residuals: Tensor) -> Tensor:
    """(k, 2): each interval [lambda_i - r_i, lambda_i + r_i] holds an eigenvalue of the Hermitian operator (Weyl).

    It does not say which one, nor that different intervals hold different ones.

    >>> eigenvalue_intervals(torch.tensor([2.0]), torch.tensor([0.5])).tolist()
    [[1.5, 2.5]]
    """
    return torch.stack([eigenvalues - residuals, eigenvalues + residuals], dim=1)
