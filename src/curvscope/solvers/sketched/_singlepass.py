"""Single-pass Rayleigh-Ritz: eigenpairs from one set of random products, for indefinite operators too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch

from curvscope.errors import InvalidArgument
from curvscope.measurement import Measured, Meter, Place, draw, output_like
from curvscope.operators import as_operator
from curvscope.sketches import SketchKind, TestMatrix
from curvscope.solvers.driver import EigenProblem, Pairs, Resources
from curvscope.solvers.results import Solution
from curvscope.solvers.sketched._common import Sketch, check_sketch, pairs_of_core
from curvscope.solvers.sketched._nystrom import INDEFINITE, definiteness
from curvscope.solvers.sketched._recovery import singlepass_core, truncation_rank
from curvscope.store import Run
from curvscope.system import Progress, checked
from curvscope.tall import TallMatrix, orthonormalize


@dataclass(frozen=True)
class SinglePass(Sketch):
    """Single-pass Rayleigh-Ritz, see :func:`singlepass`: for ``method=`` of :func:`curvscope.eigsh`.

    Attributes:
        num_outer: dimension of the space that is kept; None: as the measurements show.
        sketch: kind of the test matrix; see :class:`.TestMatrix`.
        block_size: columns a product call; default 32, fewer where memory is short.
        max_products: budget, where neither num_outer nor num_products is given; default 4 k.
        num_products: number of products; default 2 num_outer, or max_products.

    >>> from curvscope.solvers import eigsh
    >>> eigsh(torch.diag(torch.arange(50.0)), 3, method=SinglePass(num_products=10)).cost.products
    10
    """

    num_products: int | None = None

    name: ClassVar[str] = "singlepass"
    FREE = ("num_outer", "num_products", "k")

    def budgeted(self, problem: EigenProblem) -> SinglePass:
        """See :meth:`.Sketch.budgeted`; num_outer may stay open."""
        if self.num_products is None:
            return super().budgeted(problem)
        if self.max_products is not None:
            raise InvalidArgument(f"num_products={self.num_products} and max_products={self.max_products}: pass one of them")
        return self

    def with_sizes(self, num_outer: int, num_inner: int) -> SinglePass:
        """See :meth:`.Sketch.with_sizes`."""
        return replace(self, num_products=num_outer, max_products=None)

    def columns(self) -> dict[str, int | None]:
        """See :meth:`.Sketch.columns`: all products are kept."""
        return {"num_outer": self.num_products}

    def sized(self, problem: EigenProblem) -> SinglePass:
        """See :meth:`.Sketch.sized`."""
        if self.num_products is None:
            assert self.num_outer is not None
            products = 2 * self.num_outer
        else:
            products = self.num_products
        check_sketch(problem, self.sketch, products if self.num_outer is None else self.num_outer, products)
        return replace(self, num_products=products)

    def find(self, problem: EigenProblem, meter: Meter) -> Pairs:
        """See :meth:`.Sketch.find`."""
        assert self.num_products is not None
        assert self.block_size is not None
        operator, products = problem.operator, self.num_products
        right = draw(self.sketch, operator, seed=problem.seed, role="right")
        with meter.stage("sketch", products):
            outer = Measured(meter, right, products, self.block_size).all()
        with meter.stage("recovery", 0):
            outer = meter.workspace.working(outer)
            kept: int | None = products if self.num_outer is None else self.num_outer
            if self.num_outer is None:
                gram = right.adjoint_multiply(outer, 0, products)
                kept = None if definiteness(gram, operator, None) == INDEFINITE else kept
            pairs = _recover(outer, right, kept, k=problem.k, which=problem.which)
        return replace(pairs, chosen={"num_outer": int(pairs.diagnostics["rank"])})


@checked
def singlepass(  # noqa: PLR0913 -- the method's sizes and the solve's, as in the papers
    operator: Any,
    *,
    num_outer: int | None = None,
    num_products: int | None = None,
    k: int | None = None,
    which: Literal["LM", "LA", "SA", "BE"] = "LM",
    sketch: SketchKind = "gaussian",
    seed: int = 0,
    block_size: int | None = None,
    memory: int | str | None = None,
    run: Place | Run | None = None,
    executor: Any = None,
    progress: Progress = None,
) -> Solution:
    r"""Single-pass Rayleigh-Ritz: the Hermitian C that best explains :math:`C\,(Q^*\Omega) = Q^* A \Omega`.

    Q spans the num_outer leading left singular directions of :math:`A\Omega`; more products than directions keep the
    least-squares problem well-conditioned. See :func:`.recovery.singlepass_core`.

    Args:
        operator: Hermitian, real or complex; anything that ``as_operator`` takes.
        num_outer: dimension of the space that is kept; None: what :func:`.recovery.truncation_rank` finds, or all
            of it when Omega* A Omega shows a positive semidefinite operator, for which the problem is harmless.
        num_products: number of products; default 2 num_outer; one of the two must be given.
        k: how many pairs to return; default all.
        which: LM, LA, SA or BE.
        sketch: kind of the test matrix; see :class:`.TestMatrix`.
        seed: another one gives an independent sketch.
        block_size: columns a product call; default 32, fewer where memory is short.
        memory: bound for the resident memory of the whole process ("8GiB" or bytes): the block size, and with ``run`` whether
            matrices lie in memory, are chosen so that it holds; default: what is there and 0.8 of what is free.
        run: a directory that keeps measurements and results as they come: the same call resumes an interrupted run, and a
            larger sketch reuses its measurements; see :func:`curvscope.eigsh`.
        executor: who computes the products, all blocks at a time; see :class:`curvscope.Workers`. None: this process.
        progress: see :data:`.progress.Progress`.

    Cost: num_products products in one round, k more for the residuals; memory: D x num_products entries and D x k.

    Raises:
        InvalidArgument: sizes out of order, unknown names, an operator that is not square or says that it is not Hermitian.
        NotHermitian: the measurements show that it is not. NotFinite: a product has NaN in it.
    Limits: Q and the least-squares problem share their random numbers, which biases the eigenvalues; less so in seigh.
    Source: Halko, Martinsson, Tropp (SIREV 2011), section 5.5; Tropp et al. (SIMAX 2017).

    >>> solution = singlepass(torch.diag(torch.tensor([5.0, -4.0, 1.0] + [0.0] * 17)), num_outer=4)
    >>> [round(float(value), 4) for value in solution.eigenvalues[:3]]
    [5.0, -4.0, 1.0]
    """
    if num_outer is None and num_products is None:
        raise InvalidArgument("pass num_products, or num_outer for twice as many products")
    if num_outer is None and num_products is None:
        raise InvalidArgument("pass num_products, or num_outer for twice as many products")
    problem = EigenProblem(as_operator(operator), k, which, seed=seed)
    method = SinglePass(num_outer, sketch, block_size, num_products=num_products)
    return method.solve(problem, Resources(memory, run, executor, progress))


def _recover(outer: TallMatrix, right: TestMatrix, kept: int | None, *, k: int | None, which: str) -> Pairs:
    """The pairs from the leading ``kept`` directions (None: as many as are bearable) of the measurements."""
    whole = orthonormalize(outer, into=output_like(outer))
    turn, sizes, back = torch.linalg.svd(whole.coefficients, full_matrices=False)
    if kept is None:
        kept = max(k or 1, truncation_rank(sizes, outer.shape[1], outer.shape[1]))
    turn, measured = turn[:, :kept], sizes[:kept, None] * back[:kept]
    seen = turn.mH @ right.adjoint_multiply(whole.basis, 0, outer.shape[1]).mH
    core = turn @ singlepass_core(measured, seen) @ turn.mH
    diagnostics = {"rank": float(len(measured))}
    return pairs_of_core(whole.basis, core, k=len(measured) if k is None else k, which=which, diagnostics=diagnostics)
