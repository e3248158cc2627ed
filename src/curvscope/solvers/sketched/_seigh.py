"""SEIGH: eigenpairs of a Hermitian operator from one round of independent products."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.measurement import Measured, Meter, Place, draw, output_like
from curvscope.operators import as_operator
from curvscope.sketches import SketchKind, TestMatrix, check_kind
from curvscope.solvers.driver import EigenProblem, Pairs, Resources
from curvscope.solvers.results import Solution
from curvscope.solvers.sketched._common import Sketch, check_sketch, pairs_of_core
from curvscope.solvers.sketched._recovery import compressed_measurements, hermitian_core, least_squares, published_core
from curvscope.store import Run
from curvscope.system import Progress, checked
from curvscope.tall import InMemory, Orthonormalized, TallMatrix, gram, mirrored, orthonormalize, small_dtype

Core = Literal["hermitian", "published"]
"""How the small matrix is recovered from the measurements; see :func:`seigh`."""
CORES: tuple[Core, ...] = get_args(Core)


@dataclass(frozen=True)
class Seigh(Sketch):
    """Single-pass sketch with recycled measurements, see :func:`seigh`: for ``method=`` of :func:`curvscope.eigsh`.

    Attributes:
        num_outer: dimension of the space; None: three quarters of ``max_products``.
        sketch: kind of the test matrix that is multiplied; see :class:`.TestMatrix`.
        block_size: columns a product call; default 32, fewer where memory is short.
        max_products: budget, where num_outer is not given; default 4 k.
        num_inner: number of products; default ``min(2 num_outer, D)``, or max_products.
        num_left: rows of what is kept of the further measurements; default ``min(2 num_inner, D)``.
        core: "hermitian" or "published".
        left_sketch: kind of the test matrix that only compresses.

    >>> from curvscope.solvers import eigsh
    >>> eigsh(torch.diag(torch.arange(50.0)), 3, method=Seigh(num_outer=6, num_inner=10)).cost.products
    10
    """

    num_inner: int | None = None
    num_left: int | None = None
    core: Core = "hermitian"
    left_sketch: SketchKind = "sparse_sign"

    name: ClassVar[str] = "seigh"
    FREE = ("num_outer", "num_inner", "num_left", "k")

    def with_sizes(self, num_outer: int, num_inner: int) -> Seigh:
        """See :meth:`.Sketch.with_sizes`."""
        if self.num_inner is not None:
            raise InvalidArgument(f"num_inner={self.num_inner} without num_outer: pass both, or max_products")
        return replace(self, num_outer=num_outer, num_inner=num_inner, max_products=None)

    def columns(self) -> dict[str, int | None]:
        """See :meth:`.Sketch.columns`."""
        return {"num_outer": self.num_outer, "num_inner": self.num_inner, "num_left": self.num_left}

    def kinds(self) -> tuple[str, ...]:
        """See :meth:`.Sketch.kinds`."""
        return (self.sketch, self.left_sketch)

    def sized(self, problem: EigenProblem) -> Seigh:
        """See :meth:`.Sketch.sized`."""
        assert self.num_outer is not None
        size = problem.operator.shape[0]
        num_inner = min(2 * self.num_outer, size) if self.num_inner is None else self.num_inner
        check_sketch(problem, self.sketch, self.num_outer, num_inner)
        check_kind(self.left_sketch, problem.operator.dtype)
        num_left = left_size(self.num_left, self.core, self.num_outer, num_inner, size)
        return replace(self, num_inner=num_inner, num_left=num_left)

    def find(self, problem: EigenProblem, meter: Meter) -> Pairs:
        """See :meth:`.Sketch.find`."""
        assert self.num_outer is not None
        assert self.num_inner is not None
        assert self.num_left is not None
        assert self.block_size is not None
        right = draw(self.sketch, problem.operator, seed=problem.seed, role="right")
        left = draw(self.left_sketch, problem.operator, seed=problem.seed, role="left")
        with meter.stage("sketch", self.num_inner):
            measured = _measure(meter, right, left, (self.num_outer, self.num_inner, self.num_left), self.block_size)
        with meter.stage("recovery", 0):
            return _recover(measured, left, self.core, k=problem.k, which=problem.which)


@checked
def seigh(  # noqa: PLR0913 -- the method's sizes and the solve's, as in the papers
    operator: Any,
    *,
    num_outer: int,
    num_inner: int | None = None,
    num_left: int | None = None,
    core: Core = "hermitian",
    k: int | None = None,
    which: Literal["LM", "LA", "SA", "BE"] = "LM",
    sketch: SketchKind = "gaussian",
    left_sketch: SketchKind = "sparse_sign",
    seed: int = 0,
    block_size: int | None = None,
    memory: int | str | None = None,
    run: Place | Run | None = None,
    executor: Any = None,
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
        block_size: columns a product call; default 32, fewer where memory is short. The result depends on it by rounding only.
        memory: bound for the resident memory of the whole process ("8GiB" or bytes): the block size, and with ``run`` whether
            matrices lie in memory, are chosen so that it holds; default: what is there and 0.8 of what is free.
        run: a directory that keeps measurements and results as they come: the same call resumes an interrupted run, and a
            larger sketch reuses its measurements; see :func:`curvscope.eigsh`.
        executor: who computes the products, all blocks at a time; see :class:`curvscope.Workers`. None: this process.
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
    problem = EigenProblem(as_operator(operator), k, which, seed=seed)
    method = Seigh(num_outer, sketch, block_size, None, num_inner, num_left, core, left_sketch)
    return method.solve(problem, Resources(memory, run, executor, progress))


def left_size(num_left: int | None, core: str, num_outer: int, num_inner: int, size: int) -> int:
    """Return how many columns the left test matrix gets.

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
    """Stored part of A Omega = [Y_1, Y_2]."""

    outer: TallMatrix  # Y_1, (D, n_outer)
    across: Tensor  # Y_1* Omega, (n_outer, n_inner)
    further: Tensor  # Psi* Y_2, (n_left, n_inner - n_outer)


def _measure(meter: Meter, right: TestMatrix, left: TestMatrix, sizes: tuple[int, int, int], block_size: int) -> _Measured:
    """All products; each test vector is made once, and each product after the outer ones compressed as it comes."""
    num_outer, num_inner, num_left = sizes
    high = small_dtype(meter.operator.dtype)
    across = torch.zeros(num_outer, num_inner, dtype=high, device="cpu")
    further = torch.empty(num_left, num_inner - num_outer, dtype=high, device="cpu")
    measured = Measured(meter, right, num_inner, block_size, kept=num_outer)
    for start, block, directions in measured:
        stop = start + block.shape[1]
        if stop > num_outer:
            first = max(start, num_outer)
            compressed = left.adjoint_multiply(InMemory(block[:, first - start :]), 0, num_left)
            further[:, first - num_outer : stop - num_outer] = compressed
        if isinstance(measured.matrix, InMemory):
            known = min(stop, num_outer)
            across[:known, start:stop] = gram(measured.matrix.leading(known), InMemory(directions()))
        del block, directions  # before the next ones are made
    outer = meter.workspace.working(measured.matrix.leading(num_outer))
    if isinstance(measured.matrix, InMemory):
        # Omega_1* A Omega_1 is Hermitian: the blocks above its diagonal say those below
        across[:, :num_outer] = mirrored(across[:, :num_outer])
    else:  # to make the test matrix once more costs less than to read the outer measurements for every block
        across = right.adjoint_multiply(outer, 0, num_inner).mH
    return _Measured(outer, across, further)


def _recover(measured: _Measured, left: TestMatrix, core: str, *, k: int | None, which: str) -> Pairs:
    """The pairs; outer measurements in memory are overwritten by their basis."""
    whole = orthonormalize(measured.outer, into=output_like(measured.outer))
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
