"""Leverage scores: how much of a subspace lies on each parameter."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.subspaces._spaces import Basis, columns

COLUMNS_AT_A_TIME = 16


def leverage(basis: Basis, k: int | None = None) -> Tensor:
    r"""(D,) float64: l_j = sum_{i <= k} V_ji^2 in [0, 1], the squared cosine of axis j and the span; they sum to k.

    The overlap of the span with any mask is the sum of its leverage scores over k.

    Args:
        basis: orthonormal columns.
        k: how many of them; default all.

    Cost: one read of k columns; memory: D numbers and one panel.

    >>> leverage(torch.eye(3)[:, :2]).tolist()
    [1.0, 1.0, 0.0]
    """
    vectors = columns(basis)
    k = vectors.shape[1] if k is None else k
    if not 1 <= k <= vectors.shape[1]:
        raise InvalidArgument(f"k={k}: the basis has 1 to {vectors.shape[1]} columns")
    pieces = [vectors.rows(panel)[:, :k].abs().double().square().sum(dim=1).cpu() for panel in vectors.panels()]
    return torch.cat(pieces)


def growing_leverage(basis: Basis) -> Iterator[Tensor]:
    """The leverage scores of the first 1, 2, ..., K columns; one tensor, updated in place. Cost: one read of the columns."""
    vectors = columns(basis)
    scores = torch.zeros(vectors.shape[0], dtype=torch.float64, device="cpu")
    for start in range(0, vectors.shape[1], COLUMNS_AT_A_TIME):
        block = vectors.columns(start, min(start + COLUMNS_AT_A_TIME, vectors.shape[1]))
        for column in block.unbind(1):
            scores += column.abs().double().square().cpu()
            yield scores
