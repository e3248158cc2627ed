"""HMT: eigenpairs of a Hermitian operator compressed to the range of random products; two rounds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch

from curvscope.measurement import Measured, Meter, Place, blocks, draw, output_like, remembered
from curvscope.operators import as_operator
from curvscope.sketches import SketchKind
from curvscope.solvers.driver import EigenProblem, Pairs, Resources
from curvscope.solvers.results import Solution
from curvscope.solvers.sketched._common import Sketch, check_sketch, pairs_of_core
from curvscope.store import Run
from curvscope.system import Progress, checked
from curvscope.tall import InMemory, TallMatrix, gram, orthonormalize, small_dtype, symmetrized


@dataclass(frozen=True)
class HMT(Sketch):
    """Two-pass sketch, see :func:`hmt`: for ``method=`` of :func:`curvscope.eigsh`.

    Attributes:
        num_outer: dimension of the space; None: half of ``max_products``.
        sketch: kind of the test matrix; see :class:`.TestMatrix`.
        block_size: columns a product call; default 32, fewer where memory is short.
        max_products: budget, where num_outer is not given; default 4 k.

    >>> from curvscope.solvers import eigsh
    >>> eigsh(torch.diag(torch.arange(50.0)), 3, method=HMT(num_outer=10)).cost.products
    20
    """

    name: ClassVar[str] = "hmt"

    def sized(self, problem: EigenProblem) -> HMT:
        """See :meth:`.Sketch.sized`."""
        assert self.num_outer is not None
        check_sketch(problem, self.sketch, self.num_outer, self.num_outer)
        return self

    def find(self, problem: EigenProblem, meter: Meter) -> Pairs:
        """See :meth:`.Sketch.find`."""
        assert self.num_outer is not None
        assert self.block_size is not None
        with meter.stage("sketch", self.num_outer):
            right = draw(self.sketch, problem.operator, seed=problem.seed, role="right")
            outer = Measured(meter, right, self.num_outer, self.block_size).all()
        with meter.stage("orthonormalisation", 0):
            outer = meter.workspace.working(outer)
            basis = orthonormalize(outer, into=output_like(outer)).basis
            del outer
        with meter.stage("compression", basis.shape[1]):
            core, asymmetry = symmetrized(_compressed(meter, basis, self.block_size))
        diagnostics = {"asymmetry": asymmetry, "rank": float(basis.shape[1])}
        with meter.stage("recovery", 0):
            return pairs_of_core(basis, core, k=problem.k, which=problem.which, diagnostics=diagnostics)


@checked
def hmt(  # noqa: PLR0913 -- the method's sizes and the solve's, as in the papers
    operator: Any,
    *,
    num_outer: int,
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
    r"""Randomised Rayleigh-Ritz: :math:`Q = \mathrm{orth}(A\Omega)`, then :math:`A \approx Q (Q^* A Q) Q^*`.

    Args:
        operator: Hermitian, real or complex; anything that ``as_operator`` takes.
        num_outer: dimension of the space; num_outer products in the first round, as many (or its rank) in the second.
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

    Cost: 2 num_outer products in two rounds, k more for the residuals; memory: D x num_outer entries and D x k.

    Raises:
        InvalidArgument: sizes out of order, unknown names, an operator that is not square or says that it is not Hermitian.
        NotHermitian: the measurements show that it is not. NotFinite: a product has NaN in it.
    Limits: more accurate than single-pass methods of the same num_outer, for more products; block Krylov is better still.
    Source: Halko, Martinsson, Tropp (SIREV 2011), Alg. 4.1 and 5.3.

    >>> solution = hmt(torch.diag(torch.tensor([5.0, -4.0, 1.0] + [0.0] * 17)), num_outer=4)
    >>> [round(float(value), 4) for value in solution.eigenvalues[:3]]
    [5.0, -4.0, 1.0]
    """
    problem = EigenProblem(as_operator(operator), k, which, seed=seed)
    method = HMT(num_outer, sketch, block_size)
    return method.solve(problem, Resources(memory, run, executor, progress))


def _compressed_block(meter: Meter, basis: TallMatrix, start: int, stop: int) -> torch.Tensor:
    return gram(basis, InMemory(meter.multiply(basis.columns(start, stop))))


def _compressed(meter: Meter, basis: TallMatrix, block_size: int) -> torch.Tensor:
    """Q* A Q. Cost: a product for each column of Q; a run keeps the columns of every block."""
    core = torch.empty(basis.shape[1], basis.shape[1], dtype=small_dtype(basis.dtype), device="cpu")
    for start, stop in blocks(basis.shape[1], block_size):
        core[:, start:stop] = remembered(
            meter,
            f"compression/{start:08d}-{stop:08d}",
            stop - start,
            partial(_compressed_block, meter, basis, start, stop),
        )
    return core
