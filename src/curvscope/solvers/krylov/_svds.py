"""Singular triplets of any operator by block Krylov, to a tolerance."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from curvscope.errors import InvalidArgument
from curvscope.measurement import Meter
from curvscope.operators import as_operator
from curvscope.parallel import as_workers
from curvscope.solvers.driver import (
    EigenProblem,
    Evidence,
    check_k,
    check_tol,
    ends,
    finish_singular,
    metered,
    triplets_of_core,
)
from curvscope.solvers.krylov._basis import KrylovOptions
from curvscope.solvers.krylov._iterate import iterate, krylov_advice, search_for_missed
from curvscope.solvers.krylov._method import Krylov, krylov_options
from curvscope.solvers.krylov._singular_basis import Bidiagonalization
from curvscope.solvers.results import SingularSolution
from curvscope.solvers.sizing import default_width, multiple_of
from curvscope.system import Progress, checked
from curvscope.tall import multiply


@checked
def svds(  # noqa: PLR0913 -- a public function: request and resources, by keyword
    operator: Any,
    k: int,
    *,
    tol: float = 1e-3,
    block_size: int | None = None,
    ncv: int | None = None,
    max_products: int | None = None,
    seed: int = 0,
    executor: Any = None,
    progress: Progress = None,
) -> SingularSolution:
    r"""The k largest singular triplets, each with the residual that fresh products gave.

    Randomized block Golub-Kahan bidiagonalisation with full re-orthogonalisation of both sides, thick restart, and the same
    second look before convergence is believed as in :func:`curvscope.eigsh`: the block Krylov space of A* A, without forming
    it, so small singular values are right to rounding of ||A|| and not of its square root.

    Args:
        operator: m x n, real or complex, with products with its adjoint; anything that ``as_operator`` takes.
        k: number of triplets, 1 to min(m, n).
        tol: a triplet has converged when its residual is at most tol s (or 10 u ||A||). 0: use the whole of max_products.
        block_size: vectors multiplied at a time; default from k.
        ncv: most columns of either basis; default 3 k + 20 block_size.
        max_products: budget of products with A and with A* together, those for the residuals (2 k more) not counted; default
            max(10000, 200 k).
        seed: of the random start.
        executor: who computes the products, the columns of each block dealt out; see :func:`curvscope.eigsh`. None: this
            process.
        progress: see :data:`.progress.Progress`.

    Returns:
        A :class:`SingularSolution`; one that did not converge holds what there is, and its status says what to do.

    Raises:
        InvalidArgument: k, tol or sizes that cannot work, an operator without products with its adjoint.
        NotFinite: a product has NaN in it.

    Cost: products with A and A*, one each for every column of the bases; (m + n) ncv entries; 4 (m + n) b ncv
        operations a step.
    Limits: what the search for missed triplets excludes, it excludes except with a probability of 1e-3; the status says so.
    Source: Golub, Luk, Overton (1981); Baglama and Reichel (2005) for the restart.

    >>> import torch
    >>> solution = svds(torch.diag(torch.tensor([3.0, -5.0, 1.0, 0.5]))[:, :3], k=2)
    >>> [round(float(s), 4) for s in solution.S], solution.status.converged
    ([5.0, 3.0], True)
    """
    operator = as_operator(operator).without_assumption()
    m, n = operator.shape
    _check_singular_k(k, m, n)
    check_tol(tol)
    budget = max(10_000, 200 * k) if max_products is None else max_products
    if budget < 2 * k:
        raise InvalidArgument(
            f"max_products={budget} is less than 2 k = {2 * k}: each triplet needs a product with A and with A*"
        )
    size = min(m, n)
    if executor is not None and block_size is None:
        block_size = multiple_of(default_width(k), as_workers(executor).expected, size)
    problem = EigenProblem(operator, k, tol=tol, seed=seed)
    options = krylov_options(problem, Krylov(ncv, block_size, budget))
    with metered(operator, executor, progress) as meter:
        return _solved(meter, options, k, tol)


def _solved(meter: Meter, options: KrylovOptions, k: int, tol: float) -> SingularSolution:
    """The triplets, iterated on the side of the operator that is not the wider."""
    wide = meter.is_adjoint = meter.operator.shape[0] < meter.operator.shape[1]
    bases = Bidiagonalization(meter.operator, options)
    evidence = _iterated(meter, options, bases)
    meter.is_adjoint = False
    c = bases.multiplied
    left, core, right = bases.left.leading(c), bases.forward[:c, :c], bases.basis.leading(c)
    diagnostics = {"asymmetry": bases.asymmetry, "restarts": float(bases.restarts)}
    factors = (right, core.mH, left) if wide else (left, core, right)
    return finish_singular(
        meter,
        triplets_of_core(meter, *factors, k=k, diagnostics=diagnostics),
        options={"method": "krylov", **asdict(options)},
        tol=tol,
        advice=krylov_advice(options),
        evidence=evidence,
    )


def _iterated(meter: Meter, options: KrylovOptions, bases: Bidiagonalization) -> Evidence:
    """Let the bases grow until the triplets have converged and a search outside of them finds none that was missed.

    The search is for eigenvalues of A* A: two products a step.
    """
    while True:
        loop = iterate(meter, options, bases, stage="block Krylov")
        values, (_, rotation), _ = bases.ritz()
        # The square of a singular value that is right to u ||A|| is right to twice that times the value.
        sought = ends(values.square(), "LA", 2 * options.tol, bases.norm**2, bases.unit)
        if bases.exhausted:
            return Evidence()
        if not loop.finished:
            return as_singular(Evidence.none(sought))
        vectors = multiply(bases.basis.leading(bases.multiplied), rotation)
        squares = replace(options, which="LA", tol=2 * options.tol)
        found = search_for_missed(
            meter, squares, bases, vectors, sought, lambda block: meter.multiply_adjoint(meter.multiply(block))
        )
        if isinstance(found, Evidence):
            return as_singular(replace(found, products=bases.searched))
        bases.widen(found)


def as_singular(evidence: Evidence) -> Evidence:
    """Evidence about squares as evidence about singular values."""
    bounds = tuple((side, max(edge, 0.0) ** 0.5, max(bound, 0.0) ** 0.5) for side, edge, bound in evidence.bounds)
    return replace(evidence, bounds=bounds)


def _check_singular_k(k: int, m: int, n: int) -> None:
    try:
        check_k(k, min(m, n))
    except InvalidArgument as error:
        raise InvalidArgument(f"k={k!r}: choose an integer from 1 to min(m, n) = {min(m, n)}") from error
