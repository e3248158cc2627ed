"""Sums over mini-batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from curvscope.operators.products._maps import Pieces


def add_pieces(totals: Sequence[Tensor], pieces: Pieces, weight: float, *, first: bool) -> None:
    """Add weighted products of one mini-batch to totals by parameter, in place; the first one overwrites them.

    Args:
        totals: views of the sum, one for each parameter; not yet written before the first mini-batch.
        pieces: one for each parameter; None stands for zeros.
        weight: of the mini-batch.
        first: whether it is the first one.

    >>> totals = [torch.full((2,), torch.nan), torch.full((1,), torch.nan)]
    >>> add_pieces(totals, (torch.ones(2), None), 0.5, first=True)
    >>> add_pieces(totals, (torch.ones(2), torch.ones(1)), 2.0, first=False)
    >>> [total.tolist() for total in totals]
    [[2.5, 2.5], [2.0]]
    """
    for target, piece in zip(totals, pieces, strict=True):
        if piece is None:
            if first:
                target.zero_()
        elif first:
            torch.mul(piece.to(target.dtype), weight, out=target)
        else:
            target.add_(piece, alpha=weight)


def is_finite(tensor: Tensor) -> bool:
    """Return whether all entries are; the sum tells without a temporary unless it overflows."""
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())
