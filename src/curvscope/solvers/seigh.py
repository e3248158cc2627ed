"""SEIGH: eigenpairs of a Hermitian operator from one round of independent products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.execution import Progress
from curvscope.operators import as_operator
from curvscope.sketches import TestMatrix, check_kind
from curvscope.solvers.finish import Pairs, finish
from curvscope.solvers.measure import check_hermitian
from curvscope.solvers.meter import Meter
from curvscope.solvers.recovery import compressed_measurements, hermitian_core, least_squares, published_core
from curvscope.solvers.sketched import check_block_size, draw, hermitian_request, pairs_of_core
from curvscope.solvers.solution import Solution
from curvscope.tall import InMemory, Orthonormalized, gram, orthonormalize
from curvscope.tall.algebra import small_dtype
from curvscope.tall.triangles import mirrored

CORES = ("hermitian", "published")


def seigh(
    operator: Any,
    *,
    num_outer: int,
    num_inner: int | None = None,
    num_left: int | None = None,
    core: str = "hermitian",
    k: int | None = None,
    which: str = "LM",
    sketch: str = "gaussian",
    left_sketch: str = "sparse_sign",
    seed: int = 0,
    block_size: int = 32,
    progress: Progress = None,
) -> Solution:
    r"""Sketched eigendecomposition in a single pass: the paper's Alg. 2.

    With test matrices :math:`\Omega, \Psi` (D x n_inner and D x n_left, uncorrelated), measures :math:`A\Omega` once. Its first
    n_outer columns are recycled as the outer measurements, whose range gives Q; the others are kept as
    :math:`\Psi^* A \Omega`. From these the core of :math:`A \approx Q C Q^*` is solved for by
    :func:`.recovery.hermitian_core`; ``core="published"`` with ``num_left=num_inner`` is the algorithm to the letter.

    Args:
        operator: Hermitian, real or complex; anything that ``as_operator`` takes.
        num_outer: dimension of the space that is found; at most ``num_inner``. See :func:`curvscope.sizes_for_rank`.
        num_inner: number of products; default ``min(2 num_outer, D)``.
        num_left: rows of what is kept of the further measurements, num_outer to D; costs no products. Default
            ``min(2 num_inner, D)``, for "published" num_inner.
        core: "hermitian" or "published"; see :func:`.recovery.published_core`.
        k: how many pairs to return; default all ``num_outer`` (fewer if the sketch has lower rank).
        which: LM, LA, SA or BE.
        sketch: kind of the right test matrix, which is multiplied with A; see :class:`.TestMatrix`.
        left_sketch: kind of the left one, which only compresses: sparse signs are as accurate as the others and cheap.
        seed: another one gives an independent sketch.
        block_size: columns a product call; the result does not depend on it but for rounding.
        progress: see :data:`.progress.Progress`.

    Returns:
        A solution whose status is "approximate": the method does not iterate, its residuals say how good each pair is.
        ``diagnostics``: "rank" of the sketch, "asymmetry" of the published core before it is symmetrised.

    Cost: num_inner independent products and k more for the residuals, one pass; memory: D x num_outer entries and D x k, one
        block of each test matrix, and num_left x num_inner in double precision.

    Raises:
        InvalidArgument: sizes out of order, unknown kinds, an operator that is not square or says that it is not Hermitian.
        NotHermitian: the measurements show that it is not. NotFinite: a product has NaN in it.
    Limits: weak when the eigenvalues decay slowly: the pairs near num_outer are poor; block Krylov is far more accurate for
        the same number of products.
    Source: Fernandez et al., TMLR 2025 (arXiv 2504.14701), Alg. 2; the weighted Hermitian core is ours.

    >>> A = torch.diag(torch.tensor([5.0, -4.0, 1.0] + [0.0] * 17))
    >>> solution = seigh(A, num_outer=6)
    >>> [round(float(value), 4) for value in solution.eigenvalues[:3]]
    [5.0, -4.0, 1.0]
    """
    operator = as_operator(operator)
    num_inner = min(2 * num_outer, operator.shape[0]) if num_inner is None else num_inner
    check_block_size(block_size)
    hermitian_request(operator, num_outer=num_outer, num_inner=num_inner, k=k, which=which, sketch=sketch)
    check_kind(left_sketch, operator.dtype)
    num_left = left_size(num_left, core, num_outer, num_inner, operator.shape[0])
    meter = Meter(operator, progress)
    right = draw(sketch, operator, seed=seed, role="right")
    left = draw(left_sketch, operator, seed=seed, role="left")
    with meter.stage("sketch", num_inner):
        measured = _measure(meter, right, left, (num_outer, num_inner, num_left), block_size)
    with meter.stage("recovery", 0):
        pairs = _recover(measured, left, core, k=k, which=which)
        del measured
    sizes = {"num_outer": num_outer, "num_inner": num_inner, "num_left": num_left}
    kinds = {"core": core, "which": which, "sketch": sketch, "left_sketch": left_sketch, "seed": seed}
    return finish(meter, pairs, which=which, options={"method": "seigh", **sizes, **kinds})


def left_size(num_left: int | None, core: str, num_outer: int, num_inner: int, size: int) -> int:
    """How many columns the left test matrix gets.

    Raises:
        InvalidArgument: an unknown core, or fewer than num_outer, or more than D columns.
    """
    if core not in CORES:
        raise InvalidArgument(f"core={core!r}: choose one of {', '.join(CORES)}")
    if num_left is None:
        return num_inner if core == "published" else min(2 * num_inner, size)
    if not num_outer <= num_left <= size:
        raise InvalidArgument(f"num_left={num_left}: choose num_outer = {num_outer} to D = {size}")
    return num_left


@dataclass(frozen=True)
class _Measured:
    """What is kept of A Omega = [Y_1, Y_2]."""

    outer: InMemory  # Y_1, (D, n_outer)
    across: Tensor  # Y_1* Omega, (n_outer, n_inner)
    further: Tensor  # Psi* Y_2, (n_left, n_inner - n_outer)


def _measure(meter: Meter, right: TestMatrix, left: TestMatrix, sizes: tuple[int, int, int], block_size: int) -> _Measured:
    """All products; each test vector is made once, and each product after the outer ones compressed as it comes."""
    num_outer, num_inner, num_left = sizes
    operator, high = meter.operator, small_dtype(meter.operator.dtype)
    outer = InMemory.empty(operator.shape[0], num_outer, operator.dtype, operator.device)
    across = torch.zeros(num_outer, num_inner, dtype=high)
    further = torch.empty(num_left, num_inner - num_outer, dtype=high)
    for start in [*range(0, num_outer, block_size), *range(num_outer, num_inner, block_size)]:
        stop = min(start + block_size, num_outer if start < num_outer else num_inner)
        directions = right.columns(start, stop)
        block = InMemory(meter.multiply(directions))
        if start == 0:
            check_hermitian(InMemory(directions), block)
        if start < num_outer:
            outer.write(start, block.tensor)
        else:
            further[:, start - num_outer : stop - num_outer] = left.adjoint_multiply(block, 0, num_left)
        known = min(stop, num_outer)
        across[:known, start:stop] = gram(outer.leading(known), InMemory(directions))
    # Omega_1* A Omega_1 is Hermitian: the blocks above its diagonal say those below
    across[:, :num_outer] = mirrored(across[:, :num_outer])
    return _Measured(outer, across, further)


def _recover(measured: _Measured, left: TestMatrix, core: str, *, k: int | None, which: str) -> Pairs:
    """The pairs; the outer measurements are overwritten by their basis."""
    whole = orthonormalize(measured.outer, into=measured.outer)
    right = least_squares(whole.coefficients.mH, measured.across, rtol=0.0)  # Q* Omega, as Y_1 = Q R
    compressed = left.adjoint_multiply(whole.basis, 0, len(measured.further))
    return core_pairs(whole, compressed, measured.further, right, core, k=k, which=which)


def core_pairs(
    whole: Orthonormalized, compressed: Tensor, further: Tensor, right: Tensor, core: str, *, k: int | None, which: str
) -> Pairs:
    """Pairs of A ~ Q C Q* from A Omega_1 = Q R (``whole``), Psi* Q, Psi* A Omega_2 and Q* Omega."""
    products = compressed_measurements(compressed, whole.coefficients, further)
    published, asymmetry = published_core(products, right)
    small = published if core == "published" else hermitian_core(products, right, whole.coefficients.shape[1])
    diagnostics = {"asymmetry": asymmetry, "rank": float(whole.basis.shape[1])}
    return pairs_of_core(whole.basis, small, k=k, which=which, diagnostics=diagnostics)
