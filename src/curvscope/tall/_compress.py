"""A tall matrix made short: few random combinations of its rows, that keep the lengths of all its column combinations."""

from __future__ import annotations

import torch
from torch import Tensor

from curvscope.tall._matrix import TallMatrix
from curvscope.tall._triangles import BLOCK, rows_at_a_time

COPIES = 4
"""Combinations that each row goes into: one would do for rows of like size, more are for matrices with a few large rows."""


def compressed(matrix: TallMatrix, rows: int) -> Tensor:
    """S W in double precision, (rows, n), for a sparse random S with E S* S = I: || S W x || is near || W x || for every x.

    Each row of W goes, with random signs, into ``COPIES`` rows of the result: a panel of W is added as a whole, turned round by
    a random offset, so that no rows are gathered or scattered. With rows = 4 n the singular values of S W V, V* V = I, lie
    in about (1/2, 3/2), whichever W; not for certain: what is built on this must be checked. Always the same S.

    Cost: one read, 2 ``COPIES`` D n operations; memory: the result and a panel's block of columns.
    Source: Nelson, Nguyen (FOCS 2013) for sparse signs in every column of S; the offsets are ours.

    >>> from curvscope.tall import InMemory
    >>> W = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    >>> short = compressed(InMemory(W), 400)
    >>> short.shape, bool((torch.linalg.svdvals(short) / torch.linalg.svdvals(W) - 1).abs().max() < 0.2)
    (torch.Size([400, 3]), True)
    """
    high = torch.complex128 if matrix.dtype.is_complex else torch.float64
    generator = torch.Generator().manual_seed(0)
    turned = torch.zeros(matrix.shape[1], rows, dtype=high, device=matrix.device)  # a column of S W in each row
    for panel in matrix.panels(min(rows, rows_at_a_time(matrix.shape[1]))):
        block = matrix.rows(panel).mT
        signs = (2 * torch.randint(2, (COPIES, block.shape[1]), generator=generator, device="cpu") - 1).to(matrix.device, high)
        offsets = torch.randint(rows, (COPIES,), generator=generator, device="cpu").tolist()
        for start in range(0, len(block), BLOCK):
            part, room = block[start : start + BLOCK].to(high), turned[start : start + BLOCK]
            for sign, offset in zip(signs, offsets, strict=True):
                first = min(part.shape[1], rows - offset)
                room[:, offset : offset + first].addcmul_(part[:, :first], sign[:first])
                room[:, : part.shape[1] - first].addcmul_(part[:, first:], sign[first:])
    copies: float = COPIES**0.5
    return turned.mT / copies
