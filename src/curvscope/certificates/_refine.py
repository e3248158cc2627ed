"""Pairs found in single precision, made Ritz pairs in double: what mixed inside their span comes apart again."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from curvscope.tall import InMemory, TallMatrix, gram, multiply, orthonormalize, rows_at_a_time


class Refined(NamedTuple):
    """Ritz pairs of a span, and what is left.

    Attributes:
        eigenvalues: theta, float64 (k,), by descending magnitude.
        eigenvectors: V, (D, k), orthonormal.
        residual_norms: ||A v_i - theta_i v_i||, float64 (k,).
        couplings: ||V* (A v_i - theta_i v_i)||, float64 (k,): rounding.
    """

    eigenvalues: Tensor
    eigenvectors: InMemory
    residual_norms: Tensor
    couplings: Tensor


def refined(apply: Callable[[Tensor], Tensor], vectors: TallMatrix, dtype: torch.dtype, *, block_size: int = 32) -> Refined:
    """Rayleigh-Ritz on the span of the vectors, with products and arithmetic of another precision.

    Pairs of a float32 solver are mixtures of their neighbours, by its rounding over the distance of the eigenvalues: where two
    nearly agree, no float32 product can tell them apart. Products of higher precision with the *same* span can; what the span
    lacks stays as it was, and enters overlaps and eigenvalues with the gap to the rest of the spectrum only.

    Args:
        apply: products in ``dtype``, (D, b) to (D, b).
        vectors: (D, k), orthonormal up to rounding, of any precision.
        dtype: of the products and of the result.
        block_size: columns multiplied at a time.

    Cost: k products, 10 D k^2 operations; memory: two D x k matrices of ``dtype``.

    >>> from curvscope.tall import InMemory
    >>> A, mixed = torch.diag(torch.tensor([2.0, 1.0, 0.0])).double(), torch.tensor([[0.6, -0.8], [0.8, 0.6], [0, 0]])
    >>> refined(lambda x: A @ x, InMemory(mixed), torch.float64).eigenvectors.to_tensor().abs().round(decimals=12).tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    """
    k = vectors.shape[1]
    basis = InMemory.empty(vectors.shape[0], k, dtype, vectors.device)
    for panel in vectors.panels(rows_at_a_time(k)):
        basis.write_rows(panel, vectors.rows(panel).to(dtype))
    orthonormalize(basis, into=basis)
    products = basis.empty_like(k)
    for start in range(0, k, block_size):
        products.write(start, apply(basis.columns(start, min(start + block_size, k))))
    projected = gram(basis, products)
    values, turn = torch.linalg.eigh((projected + projected.mH) / 2)
    order = values.abs().argsort(descending=True, stable=True)
    values, turn = values[order], turn[:, order]
    multiply(basis, turn, into=basis)
    residuals = multiply(products, turn, into=products)
    squares = torch.zeros(k, dtype=torch.float64, device=basis.device)
    for panel in basis.panels(rows_at_a_time(k)):
        rest = residuals.rows(panel) - basis.rows(panel) * values.to(basis.device)
        squares += rest.abs().square().sum(dim=0)
        residuals.write_rows(panel, rest)
    couplings = gram(basis, residuals).abs().square().sum(dim=0).sqrt()
    return Refined(values, basis, squares.sqrt().cpu(), couplings)
