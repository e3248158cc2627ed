"""Panel products that do half the work: Gram matrices of one matrix with itself, and triangular factors."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 96
"""Columns a block: wide enough for fast products, narrow enough to leave out most of the other triangle."""


def rows_at_a_time(columns: int) -> int:
    """Rows of a panel that stays in the processor's cache while its blocks are multiplied with one another.

    At most 16,384, as long single-precision sums lose digits.

    >>> [rows_at_a_time(columns) for columns in (1, 200, 1000)]
    [16384, 5242, 2048]
    """
    return min(1 << 14, max(1 << 11, (1 << 20) // max(1, columns)))


def add_gram(total: Tensor, panel: Tensor) -> None:
    """Add panel* @ panel to ``total`` in the upper block triangle; the rest of ``total`` is not touched.

    Products are formed in the panel's precision and added in that of ``total``; the diagonal, whose terms are all positive so
    that rounding adds up, is formed in that of ``total`` too. :func:`mirrored` fills the other triangle.

    Cost: about 0.6 times 2 rows n^2 operations.
    """
    n = panel.shape[1]
    diagonal = total.diagonal().clone()
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        total[:stop, start:stop] += (panel[:, :stop].mH @ panel[:, start:stop]).to(total.dtype)
    squares = torch.linalg.vector_norm(panel, dim=0, dtype=total.dtype).square()
    total.diagonal().copy_(diagonal + squares)


def mirrored(upper: Tensor) -> Tensor:
    """The Hermitian matrix with this upper triangle."""
    strict = upper.triu(1)
    return strict + strict.mH + torch.diag(upper.diagonal().real).to(upper.dtype)


def times_triangle(panel: Tensor, triangle: Tensor) -> None:
    """In place, panel <- panel @ triangle for an upper triangular (n, n) matrix; memory: one block of columns.

    Cost: about 0.6 times 2 rows n^2 operations.

    >>> panel = torch.tensor([[1.0, 1.0]])
    >>> times_triangle(panel, torch.tensor([[2.0, 3.0], [0.0, 1.0]]))
    >>> panel.tolist()
    [[2.0, 4.0]]
    """
    n = panel.shape[1]
    for start in reversed(range(0, n, BLOCK)):
        stop = min(start + BLOCK, n)
        panel[:, start:stop] = panel[:, :stop] @ triangle[:stop, start:stop]
