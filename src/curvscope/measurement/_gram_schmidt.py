"""Block Gram-Schmidt: what of a block is new to a basis."""

from __future__ import annotations

import torch
from torch import Tensor

from curvscope.measurement._panels import Panels
from curvscope.tall import InMemory, TallMatrix, gram, orthonormalize, rows_at_a_time, small_dtype, subtract

MOST_PASSES = 4
MOST_ROWS = 1 << 16
"""Rows up to which a column in double precision is orthogonalised in one piece; beyond, panels stay in the cache."""


def split_off(
    block: Tensor,
    basis: TallMatrix,
    *,
    coupled_from: int = 0,
    noise: float | None = None,
    panels: Panels | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(rest, on_basis, on_rest) with block = Q on_basis + rest on_rest, rest orthonormal and orthogonal to Q.

    Block Gram-Schmidt, twice or more, the remainder made orthonormal between the passes: where a block lies almost in the
    basis, a second pass on the bare remainder would leave it orthogonal only to rounding of the whole block. The first pass
    may be confined to the last columns of the basis when the block has only rounding along the others, as in a three-term
    recurrence; the second sees all.

    Args:
        block: (D, b).
        basis: Q, (D, m) with orthonormal columns.
        coupled_from: first column of Q that the block is not nearly orthogonal to.
        noise: directions of the remainder up to this size are dropped; default as in :func:`curvscope.tall.orthonormalize`.
        panels: who reads a basis on disk; None: this process.

    Returns:
        rest (D, r), on_basis float64 (m, b), on_rest float64 (r, b).

    Cost: a whole pass reads Q twice, 4 D m b operations; usually two passes, or one and a short one.
    """
    if block.shape[1] == 1 and panels is None and isinstance(basis, InMemory) and basis.device == block.device:
        return _split_column(block, basis, coupled_from, 0.0 if noise is None else noise)
    rest, unit = block.clone(), torch.finfo(block.dtype).eps
    on_basis = torch.zeros(basis.shape[1], block.shape[1], dtype=small_dtype(block.dtype), device="cpu")
    on_rest = torch.eye(block.shape[1], dtype=on_basis.dtype, device="cpu")
    for turn in range(MOST_PASSES):
        start = coupled_from if turn == 0 else 0
        seen = basis.between(start, basis.shape[1])
        overlaps = gram(seen, InMemory(rest)) if panels is None else panels.gram(seen, rest)
        (subtract if panels is None else panels.subtract)(rest, seen, overlaps)
        on_basis[start:] += overlaps @ on_rest
        if turn and float(overlaps.norm()) ** 2 <= unit:  # what was subtracted left the rest orthonormal to rounding
            break
        found = orthonormalize(InMemory(rest), noise=noise if turn == 0 else 0.1)
        rest, on_rest = found.basis.to_tensor(), found.coefficients @ on_rest
        if turn and (not overlaps.numel() or float(overlaps.abs().max()) < 0.5):
            break
    return rest, on_basis, on_rest


def _split_column(block: Tensor, basis: InMemory, coupled_from: int, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """The same of a single column, whose norm is all that makes it orthonormal: a fifth of the calls of a block."""
    rest, unit, high = block.clone(), torch.finfo(block.dtype).eps, small_dtype(block.dtype)
    on_basis, scale = torch.zeros(basis.shape[1], 1, dtype=high, device="cpu"), 1.0
    for turn in range(MOST_PASSES):
        start = coupled_from if turn == 0 else 0
        seen = basis.between(start, basis.shape[1])
        overlaps = gram(seen, InMemory(rest))
        subtract(rest, seen, overlaps)
        on_basis[start:] += scale * overlaps
        size = float(torch.linalg.vector_norm(overlaps))
        if turn and size**2 <= unit:
            break
        norm = float(torch.linalg.vector_norm(rest, dtype=high))
        if norm <= (noise if turn == 0 else 0.1):
            return rest[:, :0], on_basis, torch.zeros(0, 1, dtype=high, device="cpu")
        rest /= norm
        scale *= norm
        if turn and size < 0.5:
            break
    return rest, on_basis, torch.full((1, 1), scale, dtype=high, device="cpu")


def whole_columns(basis: TallMatrix) -> Tensor | None:
    """The tensor of a basis whose columns :func:`orthogonalize_column` may take in one piece; None if they are not such.

    Sums over many rows lose digits in single precision: there the limit is a panel of :func:`.gram`.
    """
    if not isinstance(basis, InMemory) or basis.device.type != "cpu":
        return None
    rows, double = basis.shape[0], basis.dtype in (torch.float64, torch.complex128)
    return basis.tensor if rows <= (MOST_ROWS if double else rows_at_a_time(basis.shape[1])) else None


def orthogonalize_column(
    column: Tensor, basis: Tensor, coupled_from: int, noise: float
) -> tuple[Tensor, Tensor, Tensor, float] | None:
    """(rest, first, second, size): the common case of :func:`split_off` for a vector, in five passes over the columns.

    Args:
        column: (D,), not changed.
        basis: Q, (D, m), orthonormal.
        coupled_from: as there; the coefficients are ``second``, and ``first`` is to be added from this one on.
        noise: size of the rest up to which it is rounding.

    Returns:
        The rest is not normalised, ``size`` is its norm. None: the rest is rounding or needs a third pass.

    Cost: 4 D m operations for the whole pass, 4 D (m - coupled_from) for the first.
    """
    seen = basis[:, coupled_from:]
    first = torch.mv(seen.mH, column)
    rest = torch.addmv(column, seen, first, alpha=-1)
    second = torch.mv(basis.mH, rest)
    rest.addmv_(basis, second, alpha=-1)
    size = float(torch.linalg.vector_norm(rest, dtype=small_dtype(rest.dtype)))
    taken = float(torch.linalg.vector_norm(second))
    if size <= noise or not taken < 0.5 * size:
        return None
    return rest, first, second, size
