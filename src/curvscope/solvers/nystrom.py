"""Nystrom and single-pass approximations: eigenpairs from one set of random products and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.execution import Progress
from curvscope.execution.run import Run
from curvscope.operators import Operator
from curvscope.sketches import TestMatrix
from curvscope.solvers.finish import Pairs
from curvscope.solvers.footprint import fit_sketch
from curvscope.solvers.measure import Measured, blocks
from curvscope.solvers.meter import Meter
from curvscope.solvers.ordering import wanted
from curvscope.solvers.recovery import indefinite_nystrom_core, nystrom_factors, singlepass_core
from curvscope.solvers.sketched import ADVICE, draw, hermitian_request, pairs_of_core
from curvscope.solvers.solution import Solution
from curvscope.solvers.solve import solve
from curvscope.solvers.storage import Place
from curvscope.tall import TallMatrix, multiply, orthonormalize

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
    block_size: int | None = None,
    memory: int | str | None = None,
    run: Place | Run | None = None,
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
        run: a directory that keeps measurements and results as they come: the same call goes on with an interrupted run, and a
            larger sketch reuses its measurements; see :func:`curvscope.eigsh`.
        progress: see :data:`.progress.Progress`.

    Cost: num_outer products in one round, k more for the residuals; memory: D x num_outer entries three times.

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
    operator = hermitian_request(operator, num_outer=num_outer, num_inner=num_outer, k=k, which=which, sketch=sketch)
    rank = max(k or 1, 3 * num_outer // 5) if rank is None else rank
    if not 1 <= rank <= num_outer:
        raise InvalidArgument(f"rank={rank}: choose 1 to num_outer = {num_outer}")
    fitted = fit_sketch("nystrom", operator, {"num_outer": num_outer, "k": k}, memory, block_size, run)
    options = {
        "method": "nystrom",
        "num_outer": num_outer,
        "rank": rank,
        "definite": definite,
        "k": k,
        "which": which,
        "sketch": sketch,
        "seed": seed,
        "block_size": fitted.block_size,
    }

    def find(meter: Meter) -> Pairs:
        right = draw(sketch, operator, seed=seed, role="right")
        with meter.stage("sketch", num_outer):
            outer = Measured(meter, right, num_outer, fitted.block_size).all()
        with meter.stage("recovery", 0):
            outer = meter.workspace.working(outer)
            gram = right.adjoint_multiply(outer, 0, num_outer)
            if _definiteness(gram, operator, definite) == DEFINITE:
                return _positive(outer, right, fitted.block_size, k, which)
            return _indefinite(outer, gram, rank, k, which)

    free = ("num_outer", "k", "rank", "definite")
    return solve(operator, find, which=which, options=options, free=free, run=run, fitted=fitted, progress=progress)


def singlepass(
    operator: Any,
    *,
    num_outer: int | None = None,
    num_products: int | None = None,
    k: int | None = None,
    which: str = "LM",
    sketch: str = "gaussian",
    seed: int = 0,
    block_size: int | None = None,
    memory: int | str | None = None,
    run: Place | Run | None = None,
    progress: Progress = None,
) -> Solution:
    r"""Single-pass Rayleigh-Ritz: the Hermitian C that best explains :math:`C\,(Q^*\Omega) = Q^* A \Omega`.

    Q spans the num_outer leading left singular directions of :math:`A\Omega`; more products than directions keep the
    least-squares problem well-conditioned. See :func:`.recovery.singlepass_core`.

    Args:
        operator: Hermitian, real or complex; anything that ``as_operator`` takes.
        num_outer: dimension of the space that is kept; None: 3/5 num_products, or all of it when Omega* A Omega shows a
            positive semidefinite operator, for which the least-squares problem is harmless.
        num_products: number of products; default 2 num_outer; one of the two must be given.
        k: how many pairs to return; default all.
        which: LM, LA, SA or BE.
        sketch: kind of the test matrix; see :class:`.TestMatrix`.
        seed: another one gives an independent sketch.
        block_size: columns a product call; default 32, fewer where memory is short.
        memory: bound for the resident memory of the whole process ("8GiB" or bytes): the block size, and with ``run`` whether
            matrices lie in memory, are chosen so that it holds; default: what is there and 0.8 of what is free.
        run: a directory that keeps measurements and results as they come: the same call goes on with an interrupted run, and a
            larger sketch reuses its measurements; see :func:`curvscope.eigsh`.
        progress: see :data:`.progress.Progress`.

    Cost: num_products products in one round, k more for the residuals; memory: D x num_products entries three times.

    Raises:
        InvalidArgument: sizes out of order, unknown names, an operator that is not square or says that it is not Hermitian.
        NotHermitian: the measurements show that it is not. NotFinite: a product has NaN in it.
    Limits: Q and the least-squares problem share their random numbers, which biases the eigenvalues; seigh does not.
    Source: Halko, Martinsson, Tropp (SIREV 2011), section 5.5; Tropp et al. (SIMAX 2017).

    >>> solution = singlepass(torch.diag(torch.tensor([5.0, -4.0, 1.0] + [0.0] * 17)), num_outer=4)
    >>> [round(float(value), 4) for value in solution.eigenvalues[:3]]
    [5.0, -4.0, 1.0]
    """
    if num_outer is None and num_products is None:
        raise InvalidArgument("pass num_products, or num_outer for twice as many products")
    products = 2 * num_outer if num_products is None else num_products
    kept = products if num_outer is None else num_outer
    operator = hermitian_request(operator, num_outer=kept, num_inner=products, k=k, which=which, sketch=sketch)
    fitted = fit_sketch("singlepass", operator, {"num_outer": products, "k": k}, memory, block_size, run)
    options = {
        "method": "singlepass",
        "num_outer": num_outer,
        "num_products": products,
        "k": k,
        "which": which,
        "sketch": sketch,
        "seed": seed,
        "block_size": fitted.block_size,
    }

    def find(meter: Meter) -> Pairs:
        right = draw(sketch, operator, seed=seed, role="right")
        with meter.stage("sketch", products):
            outer = Measured(meter, right, products, fitted.block_size).all()
        with meter.stage("recovery", 0):
            outer = meter.workspace.working(outer)
            most = kept
            if num_outer is None and _definiteness(right.adjoint_multiply(outer, 0, products), operator, None) == INDEFINITE:
                most = max(k or 1, 3 * products // 5)
            whole = orthonormalize(outer)
            del outer
            turn, sizes, back = torch.linalg.svd(whole.coefficients, full_matrices=False)
            measured = sizes[:most, None] * back[:most]
            seen = turn[:, :most].mH @ right.adjoint_multiply(whole.basis, 0, products).mH
            core = turn[:, :most] @ singlepass_core(measured, seen) @ turn[:, :most].mH
            rank = len(measured)
            pairs = pairs_of_core(whole.basis, core, k=k or rank, which=which, diagnostics={"rank": float(rank)})
            return replace(pairs, chosen={"num_outer": most})

    free = ("num_outer", "num_products", "k")
    return solve(operator, find, which=which, options=options, free=free, run=run, fitted=fitted, progress=progress)


def _definiteness(gram: Tensor, operator: Operator, definite: bool | None) -> str:
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
    squares = sum(float(outer.rows(panel).abs().square().sum(dtype=torch.float64)) for panel in outer.panels())
    shift = 3 * torch.finfo(outer.dtype).eps * squares**0.5 / size
    shifted = outer.empty_like(count)
    for start, stop in blocks(count, block_size):
        shifted.write(start, outer.columns(start, stop) + shift * right.columns(start, stop))
    outer = shifted
    gram = right.adjoint_multiply(outer, 0, count)
    whole = orthonormalize(outer)
    values, rotation = nystrom_factors(whole.coefficients, gram, shift)
    chosen = wanted(values, len(values) if k is None else k, which)
    vectors = multiply(whole.basis, rotation[:, chosen])
    return Pairs(
        values[chosen],
        vectors,
        tol=None,
        advice=ADVICE,
        diagnostics={"rank": float(len(values)), "shift": shift},
        chosen={"core": DEFINITE},
    )


def _indefinite(outer: TallMatrix, gram: Tensor, rank: int, k: int | None, which: str) -> Pairs:
    whole = orthonormalize(outer)
    core = indefinite_nystrom_core(whole.coefficients, gram, rank)
    pairs = pairs_of_core(whole.basis, core, k=rank if k is None else k, which=which, diagnostics={"rank": float(rank)})
    return replace(pairs, chosen={"core": INDEFINITE})
