"""Trace and diagonal of a Hermitian operator, with standard errors, by parameter tensor, as exactly as asked."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch

from curvscope.estimators._estimate import Z95, DiagonalEstimate, Estimate
from curvscope.estimators._estimation import Estimation
from curvscope.estimators._samples import LayerSums, RowMoments, relative_to
from curvscope.solvers import Solution
from curvscope.system import Progress, checked


@checked
def trace(
    operator: Any,
    *,
    method: Literal["auto", "krylov", "xtrace", "xnystrace", "hutch++", "hutchinson", "exact"] = "auto",
    max_products: int = 100,
    rtol: float | None = None,
    deflate: Solution | None = None,
    seed: int = 0,
    executor: Any = None,
    progress: Progress = None,
) -> Estimate:
    """The trace of a Hermitian operator, in all and for each parameter tensor, from the same products.

    Args:
        operator: D x D; anything that :func:`curvscope.as_operator` takes.
        method: "xtrace" (two products a sample), "xnystrace" (one product a sample, for positive semidefinite operators),
            "hutch++", "hutchinson" (no memory; as good as any on a flat spectrum), "exact" (D products), or "auto": exact where
            D products are allowed, hutchinson with ``deflate``, xnystrace for Gauss-Newton and Fisher matrices, else xtrace.
            Where the first samples of xtrace show that signs alone have a smaller error, as they have on a flat spectrum and
            for a nearly diagonal matrix, "auto" gives the rest of the budget to hutchinson. "krylov" does the same as "auto"
            for a Hessian. Matrices of D <= 32 that the budget has D products for are measured exactly by all.
        max_products: budget.
        rtol: stop when the half-width of the 95 % interval is at most this times the estimate; None: use the budget. An
            estimate that did not get there has the standard error that it has.
        deflate: a solution of this operator: the sum of its eigenvalues is known, only the rest is estimated.
        seed: of the random signs.
        executor: who computes the products, the columns of each block dealt out; see :func:`curvscope.eigsh`. None: this
            process.
        progress: see :data:`.progress.Progress`.

    Returns:
        ``.value, .stderr, .products, .interval`` and ``.layers``: the diagonal block of each parameter tensor; they add up.

    Cost: at most max_products products; memory: up to 3 vectors a product in float64 for hutch++, 4 for xtrace and xnystrace,
        3 blocks of 32 in all for hutchinson.

    Raises:
        InvalidArgument: an operator that is not square, symmetric and real (for xnystrace: semidefinite), a solution of another
            one, fewer than 6 products. NotFinite: a product has NaN in it. OutOfBudget: the samples do not fit into memory.
    Limits: intervals of three samples of xtrace (6 or 7 products) held the truth in 46 of 60 cases for a matrix of three equal
        eigenvalues; take 8 products or more. Eigenvalues in ``deflate`` are off by up to their residuals, whose sum is part of
        the standard error (not of those of the layers). Samples of xtrace and xnystrace share their sketch: their scatter is
        corrected (see :func:`.probing.jackknife`) by one factor for the trace and its layers.
    Source: Epperly, Tropp and Webber, SIMAX 2024 (arXiv 2301.07825); Meyer et al. (2021); Hutchinson (1990).

    >>> estimate = trace(torch.diag(0.5 ** torch.arange(300.0).double()), max_products=60)
    >>> round(estimate.value, 6), estimate.products
    (2.0, 60)
    """
    drive = Estimation(operator, method, max_products, rtol, deflate, seed, executor, progress)
    sums = LayerSums(drive.operator, signs=drive.random)
    products = drive.run(sums, lambda: sums.relative_half_width)
    value, stderr = sums.mean_and_stderr() if drive.random else (float(sums.total[0]), 0.0)
    layers = {name: sums.layer(name, products, exact=not drive.random) for name in sums.slices}
    unsure = 0.0 if deflate is None or drive.method == "exact" else float(deflate.residual_norms.sum())
    return Estimate(value, math.hypot(stderr, unsure), products, layers, sums.degrees if drive.random else math.inf)


@checked
def diagonal(
    operator: Any,
    *,
    method: Literal["auto", "krylov", "xtrace", "xnystrace", "hutch++", "hutchinson", "exact"] = "auto",
    max_products: int = 100,
    rtol: float | None = None,
    deflate: Solution | None = None,
    seed: int = 0,
    executor: Any = None,
    progress: Progress = None,
) -> DiagonalEstimate:
    """The diagonal of a Hermitian operator, each entry with its standard error.

    Args:
        operator: see :func:`trace`, also for the methods, which are the same.
        method: see :func:`trace`; "xtrace" is a symmetric XDiag.
        max_products: budget.
        rtol: stop when 1.96 ||stderr|| is at most this times ||value||.
        deflate: a solution of this operator: its part of the diagonal is known.
        seed: of the random signs.
        executor: who computes the products, the columns of each block dealt out; see :func:`curvscope.eigsh`. None: this
            process.
        progress: see :data:`.progress.Progress`.

    Cost and errors: as :func:`trace`.

    Limits: with ``deflate``, entries are off by up to the residuals of its pairs; standard errors of xtrace and xnystrace are
        corrected as those of the layers in :func:`trace`.
    Source: Epperly, Tropp and Webber (SIMAX 2024), section 5; Bekas, Kokiopoulou and Saad (2007).

    >>> diagonal(torch.diag(torch.arange(1.0, 151.0)), method="hutchinson", max_products=6).value[:3].tolist()
    [1.0, 2.0, 3.0]
    """
    drive = Estimation(operator, method, max_products, rtol, deflate, seed, executor, progress)
    moments = RowMoments(drive.operator.shape[0])
    products = drive.run(moments, lambda: relative_to(float(moments.mean.norm()), Z95 * float(moments.stderr.norm())))
    stderr = moments.stderr if drive.random else torch.zeros_like(moments.mean)
    named = getattr(drive.operator, "parameters", None)
    layout = {} if named is None else {name: list(shape) for name, shape in zip(named.names, named.shapes, strict=True)}
    return DiagonalEstimate(moments.mean, stderr, products, layout)
