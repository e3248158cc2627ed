"""Nystrom approximations: eigenpairs from one set of random products and nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.execution import Progress
from curvscope.operators import Operator
from curvscope.sketches import TestMatrix
from curvscope.solvers.finish import Pairs, finish
from curvscope.solvers.measure import measure
from curvscope.solvers.meter import Meter
from curvscope.solvers.ordering import wanted
from curvscope.solvers.recovery import indefinite_nystrom_core, nystrom_factors
from curvscope.solvers.sketched import ADVICE, check_block_size, draw, hermitian_request, pairs_of_core
from curvscope.solvers.solution import Solution
from curvscope.tall import InMemory, multiply, orthonormalize

DEFINITE, INDEFINITE = "psd", "indefinite"
NEGATIVE = 1e3
"""An eigenvalue of Omega* A Omega below -NEGATIVE units of rounding of the largest shows that A is not positive."""


def nystrom(
    operator: Any,
    *,
    num_outer: int,
    rank: int | None = None,
    definite: bool | None = None,
    k: int | None = None,
    which: str = "LM",
    sketch: str = "gaussian",
    seed: int = 0,
    block_size: int = 32,
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
        block_size: columns a product call.
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
    check_block_size(block_size)
    operator = hermitian_request(operator, num_outer=num_outer, num_inner=num_outer, k=k, which=which, sketch=sketch)
    rank = max(k or 1, 3 * num_outer // 5) if rank is None else rank
    if not 1 <= rank <= num_outer:
        raise InvalidArgument(f"rank={rank}: choose 1 to num_outer = {num_outer}")
    meter = Meter(operator, progress)
    right = draw(sketch, operator, seed=seed, role="right")
    with meter.stage("sketch", num_outer):
        outer = measure(meter, right, num_outer, block_size)
    with meter.stage("recovery", 0):
        gram = right.adjoint_multiply(outer, 0, num_outer)
        kind = definiteness(gram, operator, definite)
        if kind == DEFINITE:
            pairs = _positive(operator, outer, right, block_size, k, which)
        else:
            pairs = _indefinite(outer, gram, rank, k, which)
        del outer
    options = {"method": "nystrom", "num_outer": num_outer, "core": kind, "which": which, "sketch": sketch, "seed": seed}
    return finish(meter, pairs, which=which, options=options | ({"rank": rank} if kind == INDEFINITE else {}))


def definiteness(gram: Tensor, operator: Operator, definite: bool | None) -> str:
    """What the eigenvalues of Omega* A Omega say of A, beyond rounding; ``definite`` is what the caller says, None: nothing."""
    values = torch.linalg.eigvalsh((gram + gram.mH) / 2)
    allowed = NEGATIVE * torch.finfo(operator.dtype).eps * float(values.abs().max())
    negative = bool(values.min() < -allowed)
    if definite and negative:
        raise InvalidArgument(
            f"definite=True, but the measurements have negative eigenvalues (down to {float(values.min()):.1e}, largest "
            f"{float(values.max()):.1e}): leave definite out, or use seigh"
        )
    return INDEFINITE if (negative and definite is None) or definite is False else DEFINITE


def _positive(operator: Operator, outer: InMemory, right: TestMatrix, block_size: int, k: int | None, which: str) -> Pairs:
    """The shifted approximation; ``outer`` is overwritten by A Omega + shift Omega."""
    count = outer.shape[1]
    # As large as the rounding of Omega* Y, so that it stays positive; a larger one (u ||Y||) would cost accuracy in proportion.
    shift = 3 * torch.finfo(operator.dtype).eps * float(outer.tensor.norm()) / operator.shape[0]
    for start in range(0, count, block_size):
        stop = min(start + block_size, count)
        outer.tensor[:, start:stop] += shift * right.columns(start, stop)
    gram = right.adjoint_multiply(outer, 0, count)
    whole = orthonormalize(outer, into=outer)
    values, rotation = nystrom_factors(whole.coefficients, gram, shift)
    chosen = wanted(values, len(values) if k is None else k, which)
    vectors = multiply(whole.basis, rotation[:, chosen])
    return Pairs(values[chosen], vectors, tol=None, advice=ADVICE, diagnostics={"rank": float(len(values)), "shift": shift})


def _indefinite(outer: InMemory, gram: Tensor, rank: int, k: int | None, which: str) -> Pairs:
    whole = orthonormalize(outer, into=outer)
    core = indefinite_nystrom_core(whole.coefficients, gram, rank)
    return pairs_of_core(whole.basis, core, k=rank if k is None else k, which=which, diagnostics={"rank": float(rank)})
