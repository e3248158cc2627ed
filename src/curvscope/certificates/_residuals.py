"""Residuals from fresh products, and what follows from them for the eigenvalues."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from curvscope.tall import InMemory, TallMatrix, rows_at_a_time, small_dtype


def residual_norms(
    multiply: Callable[[Tensor], Tensor], eigenvalues: Tensor, eigenvectors: TallMatrix, *, block_size: int = 32
) -> Tensor:
    """||A v_i - lambda_i v_i|| for every pair, from fresh products; float64 (k,). See :func:`residuals_and_shifts`.

    >>> from curvscope.tall import InMemory
    >>> residual_norms(lambda x: 2 * x, torch.tensor([2.0, 1.0]), InMemory(torch.eye(3)[:, :2])).tolist()
    [0.0, 1.0]
    """
    return residuals_and_shifts(multiply, eigenvalues, eigenvectors, block_size=block_size)[0]


def residuals_and_shifts(
    multiply: Callable[[Tensor], Tensor], eigenvalues: Tensor, eigenvectors: TallMatrix, *, block_size: int = 32
) -> tuple[Tensor, Tensor]:
    """||A v_i - lambda_i v_i|| and |v_i* A v_i - lambda_i| for every pair, from fresh products; float64 (k,) each.

    The second is how far the values are from the Rayleigh quotients of the vectors: rounding, for Ritz pairs.

    Args:
        multiply: the products, (D, b) to (D, b).
        eigenvalues: (k,).
        eigenvectors: (D, k), columns of norm one.
        block_size: columns multiplied at a time.

    Cost: k products; memory: two D x block_size blocks, and small panels in double precision.
    """
    norms, shifts = [torch.zeros(0, dtype=torch.float64, device="cpu")], [torch.zeros(0, dtype=torch.float64, device="cpu")]
    for start in range(0, eigenvectors.shape[1], block_size):
        stop = min(start + block_size, eigenvectors.shape[1])
        vectors = InMemory(eigenvectors.columns(start, stop))
        product, values = InMemory(multiply(vectors.tensor)), eigenvalues[start:stop].to(vectors.device)
        high = small_dtype(vectors.dtype)
        squares = torch.zeros(stop - start, dtype=torch.float64, device=vectors.device)
        products = torch.zeros(stop - start, dtype=high, device=vectors.device)
        # Subtracted in double: in single the rounding of lambda v would hide residuals near the rounding unit.
        for panel in vectors.panels(rows_at_a_time(stop - start)):
            rows = vectors.rows(panel).to(high)
            residual = product.rows(panel).to(high) - rows * values
            squares += residual.abs().square().sum(dim=0)
            products += (rows.conj() * residual).sum(dim=0)
        norms.append(squares.sqrt().cpu())
        shifts.append(products.abs().cpu())
    return torch.cat(norms), torch.cat(shifts)


def dilation_residuals(
    multiply: Callable[[Tensor], Tensor],
    multiply_adjoint: Callable[[Tensor], Tensor],
    left: TallMatrix,
    singular_values: Tensor,
    right: TallMatrix,
    *,
    block_size: int = 32,
) -> Tensor:
    r"""sqrt((||A v_i - s_i u_i||^2 + ||A* u_i - s_i v_i||^2) / 2) for every triplet, from fresh products; float64 (k,).

    The residual of the eigenpair (s, (u, v)/sqrt 2) of the Hermitian [[0, A], [A*, 0]], whose eigenvalues are plus and minus
    the singular values of A (and zeros): within that distance of s there is one of them.

    Args:
        multiply: products with A, (n, b) to (m, b).
        multiply_adjoint: products with A*, (m, b) to (n, b).
        left: U, (m, k), columns of norm one.
        singular_values: s, (k,).
        right: V, (n, k), columns of norm one.
        block_size: columns multiplied at a time.

    Cost: k products with A and k with A*.

    >>> from curvscope.tall import InMemory
    >>> e = InMemory(torch.eye(3)[:, :1])
    >>> dilation_residuals(lambda x: 2 * x, lambda x: 2 * x, e, torch.tensor([1.0]), e).tolist()
    [1.0]
    """
    norms = [torch.zeros(0, dtype=torch.float64, device="cpu")]
    for start in range(0, right.shape[1], block_size):
        stop = min(start + block_size, right.shape[1])
        u, v, s = left.columns(start, stop), right.columns(start, stop), singular_values[start:stop].to(left.device)
        squares = _squared_differences(multiply(v), u, s) + _squared_differences(multiply_adjoint(u), v, s)
        norms.append((squares / 2).sqrt().cpu())
    return torch.cat(norms)


def _squared_differences(products: Tensor, vectors: Tensor, values: Tensor) -> Tensor:
    """||y_i - s_i u_i||^2 for every column, in double precision."""
    high = small_dtype(vectors.dtype)
    squares = torch.zeros(vectors.shape[1], dtype=torch.float64, device=vectors.device)
    for panel in InMemory(vectors).panels(rows_at_a_time(vectors.shape[1])):
        squares += (products[panel].to(high) - vectors[panel].to(high) * values).abs().square().sum(dim=0)
    return squares


def eigenvalue_intervals(eigenvalues: Tensor, residuals: Tensor) -> Tensor:
    """(k, 2): each interval [lambda_i - r_i, lambda_i + r_i] holds an eigenvalue of the Hermitian operator (Weyl).

    It does not say which one, nor that different intervals hold different ones.

    >>> eigenvalue_intervals(torch.tensor([2.0]), torch.tensor([0.5])).tolist()
    [[1.5, 2.5]]
    """
    return torch.stack([eigenvalues - residuals, eigenvalues + residuals], dim=1)
