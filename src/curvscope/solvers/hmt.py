"""HMT: eigenpairs of a Hermitian operator compressed to the range of random products; two rounds."""

from __future__ import annotations

from typing import Any

import torch

from curvscope.execution import Progress
from curvscope.solvers.finish import finish
from curvscope.solvers.measure import measure
from curvscope.solvers.meter import Meter
from curvscope.solvers.recovery import symmetrized
from curvscope.solvers.sketched import check_block_size, draw, hermitian_request, pairs_of_core
from curvscope.solvers.solution import Solution
from curvscope.tall import InMemory, TallMatrix, gram, orthonormalize
from curvscope.tall.algebra import small_dtype


def hmt(
    operator: Any,
    *,
    num_outer: int,
    k: int | None = None,
    which: str = "LM",
    sketch: str = "gaussian",
    seed: int = 0,
    block_size: int = 32,
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
        block_size: columns a product call.
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
    check_block_size(block_size)
    operator = hermitian_request(operator, num_outer=num_outer, num_inner=num_outer, k=k, which=which, sketch=sketch)
    meter = Meter(operator, progress)
    with meter.stage("sketch", num_outer):
        outer = measure(meter, draw(sketch, operator, seed=seed, role="right"), num_outer, block_size)
    with meter.stage("orthonormalisation", 0):
        basis = orthonormalize(outer, into=outer).basis
        del outer
    with meter.stage("compression", basis.shape[1]):
        core, asymmetry = symmetrized(_compressed(meter, basis, block_size))
    diagnostics = {"asymmetry": asymmetry, "rank": float(basis.shape[1])}
    with meter.stage("recovery", 0):
        pairs = pairs_of_core(basis, core, k=k, which=which, diagnostics=diagnostics)
    options = {"method": "hmt", "num_outer": num_outer, "which": which, "sketch": sketch, "seed": seed}
    return finish(meter, pairs, which=which, options=options)


def _compressed(meter: Meter, basis: TallMatrix, block_size: int) -> torch.Tensor:
    """Q* A Q. Cost: a product for each column of Q."""
    rank = basis.shape[1]
    core = torch.empty(rank, rank, dtype=small_dtype(basis.dtype))
    for start in range(0, rank, block_size):
        stop = min(start + block_size, rank)
        core[:, start:stop] = gram(basis, InMemory(meter.multiply(basis.columns(start, stop))))
    return core
