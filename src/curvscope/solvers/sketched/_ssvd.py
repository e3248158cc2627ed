"""SSVD: singular triplets of any operator from independent products with it and its adjoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.measurement import Measured, Meter, Place, draw, output_like
from curvscope.operators import as_operator
from curvscope.operators.base import Operator
from curvscope.sketches import SketchKind, TestMatrix, check_kind
from curvscope.solvers.driver import ADVICE, Prepared, Resources, finish_singular, recalled_triplets, session, triplets_of_core
from curvscope.solvers.results import SingularSolution
from curvscope.solvers.sizing import fit_sketch
from curvscope.solvers.sketched._common import advised, check_sizes
from curvscope.solvers.sketched._recovery import generalized_nystrom_core, oversampled_core, truncation_rank
from curvscope.store import Run
from curvscope.system import Progress, checked
from curvscope.tall import InMemory, TallMatrix, orthonormalize, small_dtype

SsvdMethod = Literal["oversampled", "nystrom", "hmt"]
"""One of the methods of :func:`ssvd`."""
SSVD_METHODS: tuple[SsvdMethod, ...] = get_args(SsvdMethod)

Factors = tuple[TallMatrix, Tensor, TallMatrix, int]
"""P, C, Q of A ~ P C Q*, and the rank of C."""


@checked
def ssvd(  # noqa: PLR0913 -- the method's sizes and the solve's, as in the papers
    operator: Any,
    *,
    num_outer: int,
    num_inner: int | None = None,
    k: int | None = None,
    method: SsvdMethod = "oversampled",
    sketch: SketchKind = "gaussian",
    left_sketch: SketchKind = "sparse_sign",
    seed: int = 0,
    block_size: int | None = None,
    memory: int | str | None = None,
    run: Place | Run | None = None,
    executor: Any = None,
    progress: Progress = None,
) -> SingularSolution:
    r"""Sketched singular value decomposition: the paper's Alg. 1, and two relatives.

    - "oversampled" (Alg. 1): :math:`A\Omega` (n_inner products, the first n_outer recycled as outer measurements with range Q)
      and :math:`A^*\Gamma` (n_outer, range P); the core of :math:`A \approx Q C P^*` from :math:`\Psi^* A\Omega` by two
      least-squares problems. All products are independent of one another.
    - "nystrom", generalised: :math:`A\Omega` (n_outer) and :math:`A^*\Gamma` (n_inner); also one round. If n_inner < 2 n_outer,
      only as many directions are kept (never less than k) as :func:`.recovery.truncation_rank` finds.
    - "hmt": :math:`Q = \mathrm{orth}(A\Omega)`, then :math:`A^* Q`; two rounds, n_outer products each.

    Args:
        operator: m x n, real or complex, with products with its adjoint; anything that ``as_operator`` takes.
        num_outer: rank that is found; at most ``num_inner``. See :func:`curvscope.sizes_for_rank`.
        num_inner: default ``min(2 num_outer, m, n)``; no meaning for "hmt".
        k: how many triplets to return; default all.
        method: one of the above.
        sketch: kind of the test matrices that are multiplied with A and A*; see :class:`.TestMatrix`.
        left_sketch: kind of Psi, which only compresses.
        seed: another one gives an independent sketch.
        block_size: columns a product call; default 32, fewer where memory is short.
        memory: bound for the resident memory of the whole process ("8GiB" or bytes): the block size, and with ``run`` whether
            matrices lie in memory, are chosen so that it holds; default: what is there and 0.8 of what is free.
        run: a directory that keeps measurements and results as they come: the same call resumes an interrupted run, and a
            larger sketch reuses its measurements; see :func:`curvscope.eigsh`.
        executor: who computes the products, all blocks at a time; see :class:`curvscope.Workers`. None: this process.
        progress: see :data:`.progress.Progress`.

    Cost: num_outer + num_inner products ("hmt": 2 num_outer), and 2 k for the residuals; memory: (m + n) (num_outer + k)
        entries ("nystrom": n num_inner), one block of each test matrix, num_inner^2 in double precision.

    Raises:
        InvalidArgument: sizes out of order, unknown names, no adjoint. NotFinite: a product has NaN in it.
    Limits: weak when the singular values decay slowly.
    Source: Fernandez et al., TMLR 2025 (arXiv 2504.14701), Alg. 1; Tropp, Yurtsever, Udell, Cevher (SISC 2019); Nakatsukasa
        (2020); Halko, Martinsson, Tropp (SIREV 2011).

    >>> A = torch.zeros(30, 20, dtype=torch.float64)
    >>> A[:3, :3] = torch.diag(torch.tensor([5.0, 4.0, 1.0]))
    >>> [round(value, 6) for value in ssvd(A, num_outer=5, k=3).S.tolist()]
    [5.0, 4.0, 1.0]
    """
    made = as_operator(operator).without_assumption()
    request = SingularSketch(method, num_outer, num_inner, k, sketch, left_sketch, seed, block_size)
    return request.solve(made, Resources(memory, run, executor, progress))


@dataclass(frozen=True)
class SingularSketch:
    """A sketch of singular triplets, with its sizes; see :func:`ssvd` for the fields."""

    method: SsvdMethod
    num_outer: int
    num_inner: int | None
    k: int | None
    sketch: SketchKind
    left_sketch: SketchKind
    seed: int
    block_size: int | None

    def sized(self, operator: Operator) -> SingularSketch:
        """Return the sketch with num_inner filled in.

        Raises:
            InvalidArgument: sizes or names that cannot work.
        """
        size, num_inner = min(operator.shape), self.num_inner
        if self.method not in SSVD_METHODS:
            raise InvalidArgument(f"method={self.method!r}: choose one of {', '.join(SSVD_METHODS)}")
        if self.method == "hmt":
            if num_inner is not None:
                raise InvalidArgument('num_inner has no meaning for method="hmt": leave it out')
            num_inner = self.num_outer
        num_inner = min(2 * self.num_outer, size) if num_inner is None else num_inner
        check_sizes(size, self.num_outer, num_inner, self.num_outer if self.k is None else self.k)
        for kind in (self.sketch, self.left_sketch):
            check_kind(kind, operator.dtype)
        return replace(self, num_inner=num_inner)

    def solve(self, operator: Operator, resources: Resources) -> SingularSolution:
        """Find the triplets, unless the run has them, and measure their residuals."""
        made = self.sized(operator)
        prepared = made.prepare(operator, resources)
        with session(operator, prepared, resources) as meter:
            triplets = recalled_triplets(meter)
            if triplets is None:
                left, core, right, rank = prepared.find(meter)
                k, diagnostics = rank if self.k is None else self.k, {"rank": float(rank)}
                triplets = triplets_of_core(meter, left, core, right, k=k, diagnostics=diagnostics)
            advice = advised(ADVICE, len(triplets.values), self.k)
            return finish_singular(meter, triplets, options=prepared.options | {"method": self.method}, advice=advice)

    def prepare(self, operator: Operator, resources: Resources) -> Prepared[Factors]:
        """Return the solve with every size known, before its first product."""
        assert self.num_inner is not None
        name = f"ssvd {self.method}"
        inner, pairs = self.num_inner + self.num_outer, self.k or self.num_outer
        both: dict[str, int | None] = {"num_outer": 2 * self.num_outer, "num_inner": inner, "k": 2 * pairs}  # of both sides
        fitted = fit_sketch(name, operator, both, resources, self.block_size, (self.sketch, self.left_sketch))
        made = replace(self, block_size=fitted.block_size)
        return Prepared(partial(made.find, operator), asdict(made) | {"method": name}, ("num_outer", "num_inner", "k"), fitted)

    def find(self, operator: Operator, meter: Meter) -> Factors:
        """Measure and recover, with all sizes known: what the session times, keeps and resumes."""
        assert self.num_inner is not None
        assert self.block_size is not None
        right = draw(self.sketch, operator, seed=self.seed, role="right")
        left = draw(self.sketch, operator, seed=self.seed, role="outer left", rows=operator.shape[0])
        sizes = (self.num_outer, self.num_inner)
        match self.method:
            case "oversampled":
                inner_left = draw(self.left_sketch, operator, seed=self.seed, role="left", rows=operator.shape[0])
                return _oversampled(meter, right, (left, inner_left), sizes, self.block_size)
            case "nystrom":
                return _generalized_nystrom(meter, right, left, sizes, self.block_size, self.k or 1)
        return _hmt(meter, right, self.num_outer, self.block_size)


def _oversampled(
    meter: Meter, right: TestMatrix, lefts: tuple[TestMatrix, TestMatrix], sizes: tuple[int, int], block_size: int
) -> Factors:
    (outer_left, inner_left), (num_outer, num_inner) = lefts, sizes
    inner = torch.empty(num_inner, num_inner, dtype=small_dtype(right.dtype), device="cpu")
    with meter.stage("sketch", num_inner + num_outer):
        measured = Measured(meter, right, num_inner, block_size, kept=num_outer)
        for start, block, directions in measured:
            inner[:, start : start + block.shape[1]] = inner_left.adjoint_multiply(InMemory(block), 0, num_inner)
            del block, directions  # before the next ones are made
        co_outer = Measured(meter, outer_left, num_outer, block_size, adjoint=True).all()
    with meter.stage("recovery", 0):
        outer = meter.workspace.working(measured.matrix.leading(num_outer))
        basis = orthonormalize(outer, into=output_like(outer)).basis
        co_outer = meter.workspace.working(co_outer)
        co_basis = orthonormalize(co_outer, into=output_like(co_outer)).basis
        compressed = inner_left.adjoint_multiply(basis, 0, num_inner)
        core = oversampled_core(compressed, inner, right.adjoint_multiply(co_basis, 0, num_inner).mH)
    return basis, core, co_basis, min(core.shape)


def _generalized_nystrom(
    meter: Meter, right: TestMatrix, left: TestMatrix, sizes: tuple[int, int], block_size: int, least: int
) -> Factors:
    num_outer, num_inner = sizes
    with meter.stage("sketch", num_outer + num_inner):
        outer = Measured(meter, right, num_outer, block_size).all()
        co_outer = Measured(meter, left, num_inner, block_size, adjoint=True).all()
    with meter.stage("recovery", 0):
        outer, co_outer = meter.workspace.working(outer), meter.workspace.working(co_outer)
        whole = orthonormalize(outer, into=output_like(outer))
        co_range = orthonormalize(co_outer, into=output_like(co_outer))
        turn, found, _ = torch.linalg.svd(whole.coefficients, full_matrices=False)
        if num_inner < 2 * num_outer:
            turn = turn[:, : max(least, truncation_rank(found, num_inner, num_outer))]
        compressed = left.adjoint_multiply(whole.basis, 0, num_inner) @ turn
        core = turn @ generalized_nystrom_core(compressed, co_range.coefficients)
    return whole.basis, core, co_range.basis, turn.shape[1]


def _hmt(meter: Meter, right: TestMatrix, num_outer: int, block_size: int) -> Factors:
    with meter.stage("sketch", num_outer):
        outer = Measured(meter, right, num_outer, block_size).all()
    with meter.stage("orthonormalisation", 0):
        outer = meter.workspace.working(outer)
        basis = orthonormalize(outer, into=output_like(outer)).basis
    with meter.stage("compression", basis.shape[1]):
        name = f"{meter.workspace.scope}-rows"
        rows = Measured(meter, basis, basis.shape[1], block_size, adjoint=True, name=name).all()
    with meter.stage("recovery", 0):
        rows = meter.workspace.working(rows)
        co_range = orthonormalize(rows, into=output_like(rows))
    return basis, co_range.coefficients.mH, co_range.basis, co_range.basis.shape[1]
