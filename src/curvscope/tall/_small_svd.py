"""Singular values of small matrices that never fail to converge."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

LIN_ALG_ERROR: type[Exception] = cast(Any, torch.linalg).LinAlgError  # public, and not in its __all__

TURNS = 3


def small_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, S, V* of a matrix in memory, as ``torch.linalg.svd(matrix, full_matrices=False)``.

    LAPACK's divide and conquer (gesdd) may not converge where singular values have many copies. The singular values of P M Q,
    P and Q orthogonal, are the same; after a random P and Q it converges. If it does not even then, the Hermitian matrix
    [[0, M], [M*, 0]] gives them: its solver always converges.

    Args:
        matrix: M, (m, n).

    Cost: that of the decomposition; at most 4 times as much where it fails.

    >>> small_svd(torch.diag(torch.tensor([1.0, 3.0])))[1].tolist()
    [3.0, 1.0]
    """
    m, n = matrix.shape
    generator = torch.Generator().manual_seed(0)
    for turn in range(TURNS + 1):
        sides = [_turn(size, matrix.dtype, generator) for size in (m, n)] if turn else []
        turned = sides[0] @ matrix @ sides[1] if sides else matrix
        try:
            U, S, V = torch.linalg.svd(turned, full_matrices=False)
        except LIN_ALG_ERROR:
            continue
        if not sides:
            return U, S, V
        return sides[0].mH @ U, S, V @ sides[1].mH
    return _by_dilation(matrix)


def _turn(size: int, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """A random orthogonal matrix."""
    turn: Tensor = torch.linalg.qr(torch.randn(size, size, dtype=dtype, generator=generator, device="cpu")).Q
    return turn


def _by_dilation(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The decomposition by eigenvectors: exact to rounding for values that are not zero, completed where they are."""
    m, n = matrix.shape
    rank = min(m, n)
    zeros = matrix.new_zeros
    whole = torch.cat([torch.cat([zeros(m, m), matrix], 1), torch.cat([matrix.mH, zeros(n, n)], 1)])
    values, vectors = torch.linalg.eigh(whole)
    S, vectors = values.flip(0)[:rank].clamp(min=0), vectors.flip(1)[:, :rank] * 2**0.5
    safe = (m + n) * torch.finfo(S.dtype).eps * S.max().clamp(min=torch.finfo(S.dtype).tiny) < S
    U, V = (_completed(part, safe) for part in (vectors[:m], vectors[m:]))
    return U, torch.where(safe, S, 0.0), V.mH


def _completed(vectors: Tensor, safe: Tensor) -> Tensor:
    """Orthonormal columns whose safe ones are these, and the others anything orthogonal to them."""
    kept = int(safe.sum())
    whole = torch.linalg.qr(torch.cat([vectors[:, :kept], torch.eye(len(vectors), dtype=vectors.dtype, device="cpu")], 1)).Q
    return torch.cat([vectors[:, :kept], whole[:, kept : vectors.shape[1]]], 1)
