"""Nystrom approximations: eigenpairs from one set of random products and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.measurement import Measured, Meter, Place, blocks, draw, output_like
from curvscope.operators import as_operator
from curvscope.operators.base import Operator
from curvscope.sketches import SketchKind, TestMatrix
from curvscope.solvers.driver import EigenProblem, Pairs, Resources
from curvscope.solvers.results import Solution, wanted
from curvscope.solvers.sketched._common import ADVICE, Sketch, advised, check_sketch, pairs_of_core
from curvscope.solvers.sketched._recovery import indefinite_nystrom_core, nystrom_factors
from curvscope.store import Run
from curvscope.system import Progress, checked
from curvscope.tall import TallMatrix, multiply, orthonormalize, small_dtype

DEFINITE, INDEFINITE = "psd", "indefinite"
NEGATIVE = 1e3
"""An eigenvalue of Omega* A Omega below -NEGATIVE units of rounding of the largest shows that A is not positive."""


@dataclass(frozen=True)
class Nystrom(Sketch):
    """Sketch with one set of products, see :func:`nystrom`: for ``method=`` of :func:`curvscope.eigsh`.

    Attributes:
        num_outer: number of products; None: ``max_products``.
        sketch: kind of the test matrix; see :class:`.TestMatrix`.
        block_size: columns a product call; default 32, fewer where memory is short.
        max_products: budget, where num_outer is not given; default 4 k.
        rank: of the truncated middle factor, for indefinite operators; default 3/5 num_outer.
        definite: whether A is positive semidefinite; None: as the measurements show.

    >>> from curvscope.solvers import eigsh
    >>> eigsh(torch.diag(torch.arange(50.0)), 3, method=Nystrom(num_outer=10)).cost.products
    10
    """

    rank: int | None = None
    definite: bool | None = None

    name: ClassVar[str] = "nystrom"
    FREE = ("num_outer", "k", "rank", "definite")

    def sized(self, problem: EigenProblem) -> Nystrom:
        """See :meth:`.Sketch.sized`."""
        assert self.num_outer is not None
        check_sketch(problem, self.sketch, self.num_outer, self.num_outer)
        rank = max(problem.k or 1, 3 * self.num_outer // 5) if self.rank is None else self.rank
        if not 1 <= rank <= self.num_outer:
            raise InvalidArgument(f"rank={rank}: choose 1 to num_outer = {self.num_outer}")
        return replace(self, rank=rank)

    def find(self, problem: EigenProblem, meter: Meter) -> Pairs:
        """See :meth:`.Sketch.find`."""
        assert self.num_outer is not None
        assert self.block_size is not None
        assert self.rank is not None
        right = draw(self.sketch, problem.operator, seed=problem.seed, role="right")
        with meter.stage("sketch", self.num_outer):
            outer = Measured(meter, right, self.num_outer, self.block_size).all()
        with meter.stage("recovery", 0):
            outer = meter.workspace.working(outer)
            gram = right.adjoint_multiply(outer, 0, self.num_outer)
            if definiteness(gram, problem.operator, self.definite) == DEFINITE:
                return _positive(outer, right, self.block_size, problem.k, problem.which)
            return _indefinite(outer, gram, self.rank, problem.k, problem.which)


@checked
def nystrom(  # noqa: PLR0913 -- the method's sizes and the solve's, as in the papers
    operator: Any,
    *,
    num_outer: int,
    rank: int | None = None,
    definite: bool | None = None,
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
    r"""The Nystrom approximation :math:`A \approx (A\Omega) (\Omega^* A \Omega)^+ (A\Omega)^*` and its eigenpairs.

    For positive semidefinite operators (Gauss-Newton, Fisher) the shifted, stable form; for indefinite ones the middle factor
    is truncated to ``rank``. See :func:`.recovery.nystrom_factors` and :func:`.recovery.indefinite_nystrom_core`.

    Args:
        operator: Hermitian, real or complex; anything that ``as_operator`` takes.
        num_outer: number of products.
        rank: of the truncated middle factor, for indefinite operators; default 3/5 num_outer.
        definite: whether A is positive semidefinite; None: as the eigenvalues of Omega* A Omega show.
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

    Cost: num_outer products in one round, k more for the residuals; memory: D x num_outer entries and D x k.

    Raises:
        InvalidArgument: sizes out of order, unknown names, an operator that is not square or says that it is not Hermitian;
            definite=True for an operator whose measurements show negative eigenvalues.
        NotHermitian: the measurements show that it is not. NotFinite: a product has NaN in it.
    Limits: for indefinite operators the error can be large unless the eigenvalues decay fast; prefer seigh or krylov there.
    Source: Tropp, Yurtsever, Udell, Cevher (NIPS 2017), Alg. 3; Park, Nakatsukasa (SIMAX 2023).

    >>> solution = nystrom(torch.diag(torch.tensor([5.0, 4.0, 1.0] + [0.0] * 17)), num_outer=4)
    >>> [round(float(value), 4) for value in solution.eigenvalues[:3]]
    [5.0, 4.0, 1.0]
    """
    problem = EigenProblem(as_operator(operator), k, which, seed=seed)
    method = Nystrom(num_outer, sketch, block_size, rank=rank, definite=definite)
    return method.solve(problem, Resources(memory, run, executor, progress))


def definiteness(gram: Tensor, operator: Operator, definite: bool | None) -> str:
    """Return the definiteness of A that the eigenvalues of Omega* A Omega show; ``definite``: what the caller says, or None."""
    values = torch.linalg.eigvalsh((gram + gram.mH) / 2)
    allowed = NEGATIVE * torch.finfo(operator.dtype).eps * float(values.abs().max())
    negative = bool(values.min() < -allowed)
    if definite and negative:
        raise InvalidArgument(
            f"definite=True, but the measurements have negative eigenvalues (down to {float(values.min()):.1e}, largest "
            f"{float(values.max()):.1e}): leave definite out, or use seigh"
        )
    return INDEFINITE if (negative and definite is None) or definite is False else DEFINITE


def _positive(outer: TallMatrix, right: TestMatrix, block_size: int, k: int | None, which: str) -> Pairs:
    """The shifted approximation, from A Omega + shift Omega."""
    size, count = outer.shape
    # As large as the rounding of Omega* Y, so that it stays positive; a larger one (u ||Y||) would cost accuracy in proportion.
    norms = [float(torch.linalg.vector_norm(outer.rows(panel), dtype=small_dtype(outer.dtype))) for panel in outer.panels()]
    shift = 3 * torch.finfo(outer.dtype).eps * math.hypot(*norms) / size
    shifted = output_like(outer)
    for start, stop in blocks(count, block_size):
        shifted.write(start, right.columns(start, stop).mul_(shift).add_(outer.columns(start, stop)))
    gram = right.adjoint_multiply(shifted, 0, count)
    whole = orthonormalize(shifted, into=shifted)
    values, rotation = nystrom_factors(whole.coefficients, gram, shift)
    chosen = wanted(values, len(values) if k is None else k, which)
    vectors = multiply(whole.basis, rotation[:, chosen])
    return Pairs(
        values[chosen],
        vectors,
        tol=None,
        advice=advised(ADVICE, len(chosen), k),
        diagnostics={"rank": float(len(values)), "shift": shift},
        chosen={"core": DEFINITE},
    )


def _indefinite(outer: TallMatrix, gram: Tensor, rank: int, k: int | None, which: str) -> Pairs:
    whole = orthonormalize(outer, into=output_like(outer))
    core = indefinite_nystrom_core(whole.coefficients, gram, rank)
    pairs = pairs_of_core(whole.basis, core, k=rank if k is None else k, which=which, diagnostics={"rank": float(rank)})
    return replace(pairs, chosen={"core": INDEFINITE})
