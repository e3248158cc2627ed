"""Orthonormal bases of tall matrices, from Gram matrices alone: no Householder vectors, no second copy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curvscope.tall.algebra import gram, multiply
from curvscope.tall.matrix import TallMatrix

MOST_ROUNDS = 6


@dataclass(frozen=True)
class Orthonormalized:
    """W = Q R up to the dropped directions.

    Attributes:
        basis: Q, (D, r) with orthonormal columns.
        coefficients: R, (r, n) in double precision.
        orthogonality: max |Q* Q - I| as measured.
    """

    basis: TallMatrix
    coefficients: Tensor
    orthogonality: float


def orthonormalize(matrix: TallMatrix, *, noise: float | None = None) -> Orthonormalized:
    r"""Q and R with W = Q R, Q* Q = I, revealing the rank.

    Repeats Q <- Q N U S^{-1/2}, from the double-precision Gram matrix of the columns scaled to norm one (by N),
    N Q* Q N = U S U*, until the Gram matrix is the identity to rounding. Scaling anew in each round and bounding S from below
    lets even nearly dependent columns come out orthonormal. Left singular directions of R whose singular value is at most
    ``noise`` are rounding noise and are dropped.

    Args:
        matrix: W, (D, n), D >= 1.
        noise: absolute size below which a direction counts as noise; default 2 u ||W||_F with u the machine epsilon of
            W's dtype.

    Cost: two rounds (2 D n^2 operations for the Gram matrix, 2 D n^2 to apply) for condition numbers up to about 1e3,
    one or two more beyond; memory: one copy of W.
    Source: Stathopoulos and Wu, SIAM J. Sci. Comput. 23 (2002), with rounds and bound as above.

    >>> W = InMemory(torch.tensor([[1.0, 1.0], [0.0, 1e-3], [0.0, 0.0]]))
    >>> result = orthonormalize(W)
    >>> bool((multiply(result.basis, result.coefficients).tensor - W.tensor).norm() < 1e-6), result.orthogonality < 1e-6
    (True, True)
    """
    unit = torch.finfo(matrix.dtype).eps
    basis: TallMatrix = matrix
    overlaps = gram(basis, basis, double=True)
    coefficients = torch.eye(matrix.shape[1], dtype=overlaps.dtype)
    if noise is None:
        noise = 2 * unit * float(overlaps.diagonal().real.sum().clamp(min=0).sqrt())
    for _ in range(MOST_ROUNDS):
        turn, back = _whitening(overlaps)
        turn, coefficients = _drop_noise(turn, back @ coefficients, noise)
        basis = multiply(basis, turn)
        overlaps = gram(basis, basis, double=True)
        defect = _defect(overlaps)
        if defect <= 8 * unit:
            break
    return Orthonormalized(basis, coefficients, defect)


def polish(matrix: TallMatrix) -> None:
    """Make nearly orthonormal columns orthonormal to the rounding of their dtype, in place and without turning them.

    One step of the polar iteration, V <- V (3 I - V* V) / 2, with the panels in double precision: a defect d becomes d^2. The
    result is the orthonormal matrix nearest to V.

    Cost: 4 D n^2 operations in double precision, two reads and one write; memory: two panels.
    Source: Higham, Functions of Matrices (2008), section 8.3.

    >>> V = InMemory(torch.eye(4)[:, :2] + 1e-4)
    >>> polish(V)
    >>> orthogonality(V) < 1e-7
    True
    """
    overlaps = gram(matrix, matrix, double=True)
    correction = 1.5 * torch.eye(len(overlaps), dtype=overlaps.dtype) - 0.5 * overlaps
    correction = correction.to(matrix.device)
    for panel in matrix.panels():
        matrix.write_rows(panel, (matrix.rows(panel).to(correction.dtype) @ correction).to(matrix.dtype))


def orthogonality(matrix: TallMatrix, *, spectral: bool = False) -> float:
    """Max |V* V - I|, or with ``spectral`` ||V* V - I||_2, measured in double precision. Cost: 2 D n^2 operations."""
    overlaps = gram(matrix, matrix, double=True)
    if spectral and overlaps.numel():
        return float(torch.linalg.matrix_norm(overlaps - torch.eye(len(overlaps), dtype=overlaps.dtype), 2))
    return _defect(overlaps)


def _whitening(overlaps: Tensor) -> tuple[Tensor, Tensor]:
    """(turn, back) with Q turn nearly orthonormal and turn back = identity on the columns that are not zero."""
    norms = overlaps.diagonal().real.clamp(min=0).sqrt()
    alive = norms > 0
    scale = torch.where(alive, norms, torch.ones_like(norms))
    correlations = overlaps / (scale[:, None] * scale)
    values, vectors = torch.linalg.eigh((correlations + correlations.mH) / 2)
    floor = values.shape[0] * torch.finfo(values.dtype).eps * 16
    roots = values.clamp(min=floor).sqrt().to(vectors.dtype)
    turn = vectors / roots / scale[:, None]
    back = roots[:, None] * vectors.mH * (scale * alive)
    return turn, back


def _drop_noise(turn: Tensor, coefficients: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Without the directions that carry singular values of the coefficients up to ``noise``; unchanged if there are none."""
    left, sizes, right = torch.linalg.svd(coefficients, full_matrices=False)
    keep = sizes > noise
    if bool(keep.all()):
        return turn, coefficients
    return turn @ left[:, keep], sizes[keep, None] * right[keep]


def _defect(overlaps: Tensor) -> float:
    if not overlaps.numel():
        return 0.0
    return float((overlaps - torch.eye(overlaps.shape[0], dtype=overlaps.dtype)).abs().max())
