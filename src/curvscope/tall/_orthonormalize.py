"""Orthonormal bases of tall matrices, from Gram matrices alone: no Householder vectors, no second copy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.tall._algebra import gram, small_dtype
from curvscope.tall._compress import compressed
from curvscope.tall._matrix import InMemory, TallMatrix
from curvscope.tall._triangles import add_gram, mirrored, rows_at_a_time, times_triangle

MOST_ROUNDS = 6
WELL_CONDITIONED = 1.0
"""Condition number times rounding up to which a triangular factor is inverted; beyond, eigenvectors are used."""
NEAR = 16.0
"""Condition number of a measured Q* Q up to which one more round reaches rounding: what comes out need not be measured."""
COMPRESSED = 4
"""Rows of a compressed matrix, in parts of n."""
MIN_SHAPE_TO_COMPRESS = (256, 64)
"""Columns, and rows in parts of them, from which compressing is cheap beside a Gram matrix in double precision."""


@dataclass(frozen=True)
class Orthonormalized:
    """W = Q R up to the dropped directions.

    Attributes:
        basis: Q, (D, r) with orthonormal columns.
        coefficients: R, (r, n) in double precision.
        orthogonality: max |Q* Q - I| as measured; after a last correction that was not, what the correction (as rounded)
            makes of the Gram matrix measured before it.

    >>> import torch
    >>> from curvscope.tall import InMemory
    >>> made = orthonormalize(InMemory(torch.ones(4, 2)))    # two columns, one direction
    >>> made.basis.shape, made.coefficients.shape, made.orthogonality < 1e-6
    ((4, 1), torch.Size([1, 2]), True)
    """

    basis: TallMatrix
    coefficients: Tensor
    orthogonality: float


def orthonormalize(matrix: TallMatrix, *, into: TallMatrix | None = None, noise: float | None = None) -> Orthonormalized:
    r"""Q and R with W = Q R, Q* Q = I, revealing the rank.

    Cholesky QR from a Gram matrix in double precision, repeated until Q* Q, measured while Q is written, is the identity to
    rounding, ||Q* Q - I||_2 <= 8 u, or so well conditioned (16) that one more round makes it so. Where the columns (scaled to
    norm one) are too dependent for a triangular factor, a round uses Q <- Q N U S^{-1/2} with N Q* Q N = U S U* instead, S
    bounded from below, so that even nearly dependent columns come out orthonormal. Left singular directions of R whose singular
    value is at most ``noise`` are rounding noise and are dropped.

    A matrix in memory of many columns, whose reads cost little beside the arithmetic, is first multiplied by R^{-1} of its
    compression S W = Q R (see :func:`.compress.compressed`), or by V S^{-1}, unless that shows noise: what comes out is well
    conditioned whatever W was, and a Gram matrix in W's own precision does.

    Args:
        matrix: W, (D, n), D >= 1.
        into: where Q is written, a tall matrix of W's shape and dtype, in memory or not; ``matrix`` itself to overwrite it;
            default a new matrix where W lies. Q is its leading r columns.
        noise: absolute size below which a direction counts as noise; default 2 u ||W||_F with u the machine epsilon of
            W's dtype.

    Cost: 2 reads and 1 write of W for condition numbers up to about 50 (single precision), 3 and 2 beyond, each
        about 1.2 D n^2 operations a read, the first in double precision; with a compression 3 reads and 2 writes, the first
        read of 8 D n operations. Memory: Q, or with ``into`` two panels.

    Raises:
        InvalidArgument: ``into`` has another shape or dtype.
    Source: Yamamoto, Nakatsukasa, Yanagisawa, Fukaya (ETNA 44, 2015) for Cholesky QR in two rounds; Yamazaki, Tomov,
        Dongarra (SISC 37, 2015) for the Gram matrix in higher precision; Stathopoulos, Wu (SISC 23, 2002) for eigenvectors;
        Garrison, Ipsen (arXiv 2406.11751, 2024) for the triangular factor of a compression.

    >>> from curvscope.tall import multiply
    >>> from curvscope.tall import InMemory
    >>> W = InMemory(torch.tensor([[1.0, 1.0], [0.0, 1e-3], [0.0, 0.0]]))
    >>> result = orthonormalize(W)
    >>> bool((multiply(result.basis, result.coefficients).tensor - W.tensor).norm() < 1e-6), result.orthogonality < 1e-6
    (True, True)
    """
    if into is None:
        into = matrix.empty_like(matrix.shape[1])
    if into.shape != matrix.shape or into.dtype != matrix.dtype:
        raise InvalidArgument(f"into is {into!r}, the matrix {matrix!r}: they must have the same shape and dtype")
    unit = torch.finfo(matrix.dtype).eps
    basis, measured, coefficients = matrix, False, torch.eye(matrix.shape[1], dtype=small_dtype(matrix.dtype), device="cpu")
    if first := _compressed_whitening(matrix, noise, unit):
        turn, coefficients = first
        basis, overlaps = _turned(matrix, turn, into, measure=True)
        measured = True
    else:
        # In double precision: a Gram matrix squares the condition number, so in single precision Cholesky would fail from a
        # condition number of 3e3 on.
        overlaps = gram(matrix, matrix, double=True)
    if noise is None:
        noise = 2 * unit * _frobenius(overlaps, coefficients)
    for _ in range(MOST_ROUNDS):
        # The read that writes Q measures Q* Q as well. Once that is well conditioned, one more round surely reaches rounding:
        # measuring what comes out of it would cost another read of a matrix that may lie on a disk.
        last = measured and _condition(overlaps) <= NEAR
        turn, back = _whitening(overlaps, coefficients, noise, unit)
        coefficients = back @ coefficients
        basis, found = _turned(basis, turn, into, measure=not last)
        if last:
            turn = turn.to(matrix.dtype).to(overlaps.dtype)
            overlaps = turn.mH @ overlaps @ turn
            break
        overlaps, measured = found, True
        if _spectral_defect(overlaps) <= 8 * unit:
            break
    return Orthonormalized(basis, coefficients, _defect(overlaps))


def polish(matrix: TallMatrix) -> None:
    """Make nearly orthonormal columns orthonormal to the rounding of their dtype, in place and without turning them.

    One step of the polar iteration, V <- V (3 I - V* V) / 2, with the panels in double precision: a defect d becomes d^2. The
    result is the orthonormal matrix nearest to V.

    Cost: 4 D n^2 operations in double precision, two reads and one write; memory: two panels.
    Source: Higham, Functions of Matrices (2008), section 8.3.

    >>> from curvscope.tall import InMemory
    >>> V = InMemory(torch.eye(4)[:, :2] + 1e-4)
    >>> polish(V)
    >>> orthogonality(V) < 1e-7
    True
    """
    overlaps = gram(matrix, matrix, double=True)
    correction = 1.5 * torch.eye(len(overlaps), dtype=overlaps.dtype, device="cpu") - 0.5 * overlaps
    correction = correction.to(matrix.device)
    for panel in matrix.panels():
        matrix.write_rows(panel, (matrix.rows(panel).to(correction.dtype) @ correction).to(matrix.dtype))


def orthogonality(matrix: TallMatrix, *, spectral: bool = False) -> float:
    """Max |V* V - I|, or with ``spectral`` ||V* V - I||_2, measured in double precision. Cost: 2 D n^2 operations.

    >>> from curvscope.tall import InMemory
    >>> orthogonality(InMemory(2 * torch.eye(3)[:, :2]))
    3.0
    """
    overlaps = gram(matrix, matrix, double=True)
    if spectral:
        return _spectral_defect(overlaps)
    return _defect(overlaps)


def _compressed_whitening(matrix: TallMatrix, noise: float | None, unit: float) -> tuple[Tensor, Tensor] | None:
    """(turn, back) as in :func:`_whitening`, nothing left out, from a compressed matrix.

    None where that costs more than a Gram matrix, or where it shows directions that may be noise: which they are is not told
    from random combinations.
    """
    rows, columns = matrix.shape
    least, times = MIN_SHAPE_TO_COMPRESS
    if not isinstance(matrix, InMemory) or columns < least or rows < times * columns:
        return None
    factor = torch.linalg.qr(compressed(matrix, COMPRESSED * columns), mode="r").R.cpu()
    scale = torch.linalg.vector_norm(factor, dim=0)
    smallest = 2 * (2 * unit * float(scale.norm()) if noise is None else noise)
    if not bool((scale > 0).all()) or float(torch.linalg.svdvals(factor)[-1]) <= smallest:
        return None
    sizes = torch.linalg.svdvals(factor / scale)
    if float(sizes[-1]) <= columns * torch.finfo(sizes.dtype).eps * 16 * float(sizes[0]):
        return None
    if float(sizes[0]) <= _most(unit) * float(sizes[-1]):
        return torch.linalg.solve_triangular(factor, torch.eye(columns, dtype=factor.dtype, device="cpu"), upper=True), factor
    _, sizes, rotation = torch.linalg.svd(factor / scale)
    return rotation.mH / sizes / scale[:, None], sizes[:, None] * rotation * scale


def _whitening(overlaps: Tensor, coefficients: Tensor, noise: float, unit: float) -> tuple[Tensor, Tensor]:
    """(turn, back) with Q turn nearly orthonormal, (Q turn) back = Q and no noise in back @ coefficients.

    turn is upper triangular where that is safe.
    """
    # Columns are scaled to norm one first, which is within sqrt(n) of the best scaling (van der Sluis 1969): columns of very
    # different sizes are no reason to leave the triangle. Zero columns are left to the eigenvectors.
    norms = overlaps.diagonal().real.clamp(min=0).sqrt()
    alive = norms > 0
    scale = torch.where(alive, norms, torch.ones_like(norms))
    correlations = overlaps / (scale[:, None] * scale)
    triangle, failed = torch.linalg.cholesky_ex(correlations, upper=True)
    if not int(failed) and bool(alive.all()):
        back = triangle * scale
        sizes = torch.linalg.svdvals(triangle)
        # A triangle keeps the order of the columns (column j of Q depends on the first j of W alone) and costs half. It is
        # given up where its inverse would amplify rounding above what the next round can repair, or where a direction is noise.
        if not len(sizes) or (
            float(sizes[0]) <= _most(unit) * float(sizes[-1]) and float(torch.linalg.svdvals(back @ coefficients)[-1]) > noise
        ):
            identity = torch.eye(len(norms), dtype=triangle.dtype, device="cpu")
            return torch.linalg.solve_triangular(triangle, identity, upper=True) / scale[:, None], back
    values, vectors = torch.linalg.eigh((correlations + correlations.mH) / 2)
    # Eigenvalues below the rounding of eigh are of any size and sign. Bounded from below, their directions come out short
    # instead of long, and the next round, which measures them again, stretches them to norm one.
    floor = len(values) * torch.finfo(values.dtype).eps * 16
    roots = values.clamp(min=floor).sqrt().to(vectors.dtype)
    return _without_noise(vectors / roots / scale[:, None], roots[:, None] * vectors.mH * (scale * alive), coefficients, noise)


def _most(unit: float) -> float:
    """The condition number up to which a triangular factor is inverted: no Gram matrix in double precision tells more."""
    return float(WELL_CONDITIONED * min(1 / unit, torch.finfo(torch.float64).eps ** -0.5))


def _without_noise(turn: Tensor, back: Tensor, coefficients: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """(turn, back) without the directions that carry singular values of back @ coefficients up to ``noise``."""
    left, sizes, _ = torch.linalg.svd(back @ coefficients, full_matrices=False)
    keep = left[:, sizes > noise]
    if keep.shape[1] == len(back):
        return turn, back
    return turn @ keep, keep.mH @ back


def _turned(source: TallMatrix, turn: Tensor, into: TallMatrix, *, measure: bool) -> tuple[TallMatrix, Tensor]:
    """The product source @ turn, written panel by panel into the leading columns of ``into``, and its Gram matrix (or 0).

    Cost: one read and one write.
    """
    rank = turn.shape[1]
    target = into if rank == into.shape[1] else into.leading(rank)
    factor = turn.to(source.device, source.dtype)
    triangular = turn.shape[0] == rank and not bool(turn.tril(-1).any())
    total = torch.zeros(rank, rank, dtype=small_dtype(source.dtype), device=source.device)
    for panel in source.panels(rows_at_a_time(rank)):
        block = source.rows(panel)
        if triangular:
            block = block if source is into else block.clone()
            times_triangle(block, factor)
        else:
            block = block @ factor
        if measure:
            add_gram(total, block)
        target.write_rows(panel, block)
    return target, mirrored(total).cpu()


def _frobenius(overlaps: Tensor, coefficients: Tensor) -> float:
    """||Q R||_F from Q* Q and R."""
    return float((coefficients.conj() * (overlaps @ coefficients)).sum().real.clamp(min=0).sqrt())


def _condition(overlaps: Tensor) -> float:
    """Of a Gram matrix; infinite where it is singular to rounding."""
    if not overlaps.numel():
        return 1.0
    values = torch.linalg.eigvalsh(overlaps)
    return float(values[-1] / values[0]) if float(values[0]) > 0 else float("inf")


def _spectral_defect(overlaps: Tensor) -> float:
    if not overlaps.numel():
        return 0.0
    return float(torch.linalg.matrix_norm(overlaps - torch.eye(len(overlaps), dtype=overlaps.dtype, device="cpu"), 2))


def _defect(overlaps: Tensor) -> float:
    if not overlaps.numel():
        return 0.0
    return float((overlaps - torch.eye(overlaps.shape[0], dtype=overlaps.dtype, device="cpu")).abs().max())
