"""HMT: eigenpairs of a Hermitian operator compressed to the range of random products; two rounds."""

from __future__ import annotations

from typing import Any

import torch

from curvscope.measurement import Measured, Meter, Place, blocks, draw, remembered, room_for
from curvscope.solvers.driver import Pairs, solve
from curvscope.solvers.results import Solution
from curvscope.solvers.sizing import fit_sketch
from curvscope.solvers.sketched._common import hermitian_request, pairs_of_core
from curvscope.store import Run
from curvscope.system import Progress, checked
from curvscope.tall import InMemory, TallMatrix, gram, orthonormalize, small_dtype, symmetrized


@checked
def hmt(
    operator: Any,
    *,
    num_outer: int,
    k: int | None = None,
    which: str = "LM",
    sketch: str = "gaussian",
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
        run: a directory that keeps measurements and results as they come: the same call goes on with an interrupted run, and a
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
    operator = hermitian_request(operator, num_outer=num_outer, num_inner=num_outer, k=k, which=which, sketch=sketch)
    fitted = fit_sketch("hmt", operator, {"num_outer": num_outer, "k": k}, memory, block_size, run, (sketch,))
    options = {
        "method": "hmt",
        "num_outer": num_outer,
        "k": k,
        "which": which,
        "sketch": sketch,
        "seed": seed,
        "block_size": fitted.block_size,
    }

    def find(meter: Meter) -> Pairs:
        """Measure and recover: what the session times, keeps and goes on with."""
        with meter.stage("sketch", num_outer):
            outer = Measured(meter, draw(sketch, operator, seed=seed, role="right"), num_outer, fitted.block_size).all()
        with meter.stage("orthonormalisation", 0):
            outer = meter.workspace.working(outer)
            basis = orthonormalize(outer, into=room_for(outer)).basis
            del outer
        with meter.stage("compression", basis.shape[1]):
            core, asymmetry = symmetrized(_compressed(meter, basis, fitted.block_size))
        diagnostics = {"asymmetry": asymmetry, "rank": float(basis.shape[1])}
        with meter.stage("recovery", 0):
            return pairs_of_core(basis, core, k=k, which=which, diagnostics=diagnostics)

    free = ("num_outer", "k")
    where = {"run": run, "fitted": fitted, "executor": executor}
    return solve(operator, find, which=which, options=options, free=free, progress=progress, **where)


def _compressed(meter: Meter, basis: TallMatrix, block_size: int) -> torch.Tensor:
    """Q* A Q. Cost: a product for each column of Q; a run keeps the columns of every block."""
    core = torch.empty(basis.shape[1], basis.shape[1], dtype=small_dtype(basis.dtype), device="cpu")
    for start, stop in blocks(basis.shape[1], block_size):
        core[:, start:stop] = remembered(
            meter,
            f"compression/{start:08d}-{stop:08d}",
            stop - start,
            lambda start=start, stop=stop: gram(basis, InMemory(meter.multiply(basis.columns(start, stop)))),
        )
    return core
