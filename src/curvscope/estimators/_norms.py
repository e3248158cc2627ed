"""Frobenius and spectral norm of an operator."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from curvscope.certificates import slack, tail_norm
from curvscope.errors import InvalidArgument
from curvscope.estimators._deflation import Deflation
from curvscope.estimators._estimate import Estimate, NormBound
from curvscope.estimators._samples import LayerSums
from curvscope.measurement import Meter, blocks
from curvscope.operators import as_operator
from curvscope.operators.base import Operator
from curvscope.sketches import TestMatrix
from curvscope.solvers import Solution, Units
from curvscope.solvers.driver import check_operator, metered
from curvscope.system import Progress, checked
from curvscope.tall import InMemory

BLOCK, FIRST_LOOK, ROLE = 32, 8, "norms"
SHORTEST = 10
ROUNDINGS = 10
"""Rounding units of products, relative to the norm, by which the bound of a norm is raised."""


@checked
def frobenius_norm(
    operator: Any,
    *,
    max_products: int = 100,
    rtol: float | None = None,
    deflate: Solution | None = None,
    seed: int = 0,
    executor: Any = None,
    progress: Progress = None,
) -> Estimate:
    r"""||A||_F of a Hermitian operator, and of the rows of each parameter tensor, from the same products.

    .. math:: \|A\|_F^2 = \|A V\|_F^2 + E \|A (I - V V^*) w\|^2, \qquad \|A V\|_F^2 = \sum \theta_i^2 + \|r_i\|^2

    for Gaussian w, with V, theta and residuals r of a solution, if there is one: the first part is exact. All of it is where D
    products are allowed, without ``rtol``: they give every column.

    Args:
        operator: D x D; anything that :func:`curvscope.as_operator` takes.
        max_products: budget.
        rtol: stop when the half-width of the 95 % interval is at most this times the estimate; None: use the budget.
        deflate: a solution of this operator.
        seed: of the probes.
        executor: who computes the products, the columns of each block dealt out; see :func:`curvscope.eigsh`. None: this
            process.
        progress: see :data:`.progress.Progress`.

    Returns:
        ``.value, .stderr, .products``; ``.layers``: the norm of each tensor's rows of A; their squares add up.

    Cost: at most max_products products; memory: 4 blocks of 32 vectors in float64.

    Raises:
        InvalidArgument: an operator that is not square, symmetric and real, a solution of another one, fewer than 2 products.
        NotFinite: a product has NaN in it.
    Limits: for vectors in ``deflate`` that are not Ritz vectors (sketches), r_i has a part along v_i; what that can change is
        in the standard error. Bounds that hold with a stated probability are in :func:`curvscope.posterior_error`.

    >>> estimate = frobenius_norm(torch.diag(torch.full((400,), 2.0)), max_products=50)
    >>> abs(estimate.value - 40) < 4 * estimate.stderr
    True
    """
    operator = as_operator(operator)
    check_operator(operator)
    if max_products < 2 or (rtol is not None and not rtol > 0):
        raise InvalidArgument(f"max_products={max_products}, rtol={rtol}: allow at least 2 products, and a positive rtol")
    if rtol is None and max_products >= operator.shape[0]:
        return _exact_frobenius(operator, executor, progress)
    random = TestMatrix("gaussian", operator.shape[0], seed=seed, role=ROLE, dtype=torch.float64, device=operator.device)
    sums = LayerSums(operator)
    known = unsure = 0.0
    if deflate is not None:
        sizes, off = deflate.eigenvalues.abs(), deflate.residual_norms
        known, unsure = float(sizes.square().sum() + off.square().sum()), 2 * float(sizes @ off)
    with metered(operator, executor, progress) as meter, meter.stage("Frobenius norm", max_products):
        deflation = Deflation(operator, meter.multiply, deflate)
        for start, stop in blocks(max_products, BLOCK if rtol is None else FIRST_LOOK):
            squares = deflation.multiply_raw(deflation.project(random.columns(start, stop))).square()
            sums.add([(slice(0, operator.shape[0]), squares)])
            mean, stderr = sums.mean_and_stderr()
            found = _root(known, Estimate(mean, math.hypot(stderr, unsure), meter.products, degrees=sums.degrees))
            if rtol is not None and found.half_width <= rtol * found.value:
                break
    layers = {}
    for name, place in sums.slices.items():
        inside = 0.0
        if deflate is not None:
            rows = deflate.eigenvectors.rows(place).double()
            inside = float((rows.square() @ deflate.eigenvalues.square().to(rows.device)).sum())
        layers[name] = _root(inside, sums.layer(name, meter.products, exact=False))
    return replace(found, layers=layers)


@checked
def spectral_norm(
    operator: Any, *, rtol: float = 0.1, failure: float = 1e-6, seed: int = 0, progress: Progress = None
) -> NormBound:
    """||A||_2 of a Hermitian operator, with an upper bound that holds except with a stated probability.

    Lanczos from a Gaussian start; the number of steps is what makes the bound at most (1 + rtol) times what was found.

    Args:
        operator: D x D; anything that :func:`curvscope.as_operator` takes.
        rtol: (upper - value) / value.
        failure: probability with which the bound may be wrong.
        seed: of the start.
        progress: see :data:`.progress.Progress`.

    Returns:
        ``.value`` (a lower bound), ``.upper``, ``.failure``, ``.products``.

    Cost: about ln(1.6 sqrt(D) / failure) / sqrt(2 rtol) products, one at a time; memory: as many vectors.

    Raises:
        InvalidArgument: an operator that is not square, symmetric and real; rtol or failure out of range.
        NotFinite: a product has NaN in it.
    Source: Kuczynski and Wozniakowski (1992); see :func:`.tail.tail_norm`.

    >>> norm = spectral_norm(torch.diag(torch.linspace(-7.0, 3.0, 500, dtype=torch.float64)))
    >>> norm.value <= 7 + 1e-9 <= norm.upper <= 1.1 * norm.value
    True
    """
    operator = as_operator(operator)
    check_operator(operator)
    if not rtol > 0 or not 0 < failure < 1:
        raise InvalidArgument(f"rtol={rtol}, failure={failure}: choose rtol > 0, such as 0.1, and 0 < failure < 1")
    size = operator.shape[0]
    steps = SHORTEST
    while steps < size and slack(size, steps, failure) > 1 + rtol:
        steps += 2
    meter = Meter(operator, progress)
    nothing = InMemory.empty(size, 0, operator.dtype, operator.device)
    start = TestMatrix("gaussian", size, seed=seed, role=ROLE, dtype=operator.dtype, device=operator.device).columns(0, 1)
    with meter.stage("spectral norm", min(steps, size)):
        found = tail_norm(meter.multiply, nothing, start[:, 0], steps=steps, failure=failure)
    # The bound is for exact products. It can meet the norm to the last digit, where their rounding decides.
    upper = found.bound * (1 + ROUNDINGS * operator.rounding)
    return NormBound(found.estimate, upper, found.failure, found.products)


def _exact_frobenius(operator: Operator, executor: Any, progress: Progress) -> Estimate:
    size, sums = operator.shape[0], LayerSums(operator)
    units = Units(size, operator.dtype, operator.device)
    with metered(operator, executor, progress) as meter, meter.stage("Frobenius norm", size):
        for start, stop in blocks(size, BLOCK):
            columns = meter.multiply(units.columns(start, stop)).double()
            sums.add([(slice(0, size), size * columns.square())])
    layers = {name: _root(0.0, sums.layer(name, meter.products, exact=True)) for name in sums.slices}
    return replace(_root(0.0, Estimate(sums.mean_and_stderr()[0], 0.0, meter.products)), layers=layers)


def _root(known: float, square: Estimate) -> Estimate:
    root = math.sqrt(known + square.value)
    return Estimate(root, square.stderr / (2 * root) if root else 0.0, square.products, degrees=square.degrees)
