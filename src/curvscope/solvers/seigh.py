"""SEIGH: eigenpairs of a Hermitian operator from one round of independent products."""

from __future__ import annotations

from typing import Any

import torch

from curvscope.errors import InvalidArgument
from curvscope.execution import Progress
from curvscope.operators import as_operator
from curvscope.sketches import TestMatrix
from curvscope.solvers.checks import check_operator
from curvscope.solvers.finish import Pairs, finish
from curvscope.solvers.meter import Meter
from curvscope.solvers.ordering import check_which, wanted
from curvscope.solvers.recovery import hermitian_core
from curvscope.solvers.solution import Solution
from curvscope.tall import InMemory, gram, multiply, orthonormalize


def seigh(
    operator: Any,
    *,
    num_outer: int,
    num_inner: int | None = None,
    k: int | None = None,
    which: str = "LM",
    sketch: str = "gaussian",
    seed: int = 0,
    block_size: int = 32,
    progress: Progress = None,
) -> Solution:
    r"""Sketched eigendecomposition in a single pass: the paper's Alg. 2.

    With test matrices :math:`\Omega, \Psi` (D x n_inner, uncorrelated), measures :math:`A\Omega` once. Its first n_outer
    columns are recycled as the outer measurements, whose range gives Q; all of it gives the inner measurements
    :math:`\Psi^* A \Omega`, from which :func:`.recovery.hermitian_core` solves for the core of :math:`A \approx Q C Q^*`.

    Args:
        operator: Hermitian; anything that ``as_operator`` takes.
        num_outer: dimension of the space that is found; at most ``num_inner``.
        num_inner: number of products; default ``min(2 num_outer, D)``.
        k: how many pairs to return; default all ``num_outer`` (fewer if the sketch has lower rank).
        which: LM, LA, SA or BE.
        sketch: kind of the test matrices; see :class:`.TestMatrix`.
        seed: another one gives an independent sketch.
        block_size: columns a product call; the result does not depend on it but for rounding.
        progress: see :data:`.progress.Progress`.

    Returns:
        A solution whose status is "approximate": the method does not iterate, its residuals say how good each pair is.

    Cost: num_inner independent products and k more for the residuals, one pass; memory: D x num_outer entries three times,
        D x num_inner twice (the test matrices) and num_inner^2 in double precision.

    Raises:
        InvalidArgument: sizes out of order, an operator that is not square or not Hermitian.
    Limits: weak when the eigenvalues decay slowly: the pairs near num_outer are poor; block Krylov is far more accurate for
        the same number of products.
    Source: Fernandez et al., TMLR 2025 (arXiv 2504.14701), Alg. 2.

    >>> A = torch.diag(torch.tensor([5.0, -4.0, 1.0] + [0.0] * 17))
    >>> solution = seigh(A, num_outer=6)
    >>> [round(float(value), 4) for value in solution.eigenvalues[:3]]
    [5.0, -4.0, 1.0]
    """
    operator = as_operator(operator)
    check_operator(operator)
    check_which(which)
    size = operator.shape[0]
    num_inner = min(2 * num_outer, size) if num_inner is None else num_inner
    _check_sizes(size, num_outer, num_inner, num_outer if k is None else k)
    meter = Meter(operator, progress)
    like = {"seed": seed, "dtype": operator.dtype, "device": operator.device}
    right = TestMatrix(sketch, size, role="right", **like)
    left = TestMatrix(sketch, size, role="left", **like)

    outer = InMemory.empty(size, num_outer, operator.dtype, operator.device)
    left_columns = InMemory(left.columns(0, num_inner))
    inner = torch.empty(num_inner, num_inner, dtype=torch.float64)
    with meter.stage("sketch", num_inner):
        for start in range(0, num_inner, block_size):
            stop = min(start + block_size, num_inner)
            block = meter.multiply(right.columns(start, stop))
            inner[:, start:stop] = gram(left_columns, InMemory(block))
            if start < num_outer:
                outer.write(start, block[:, : num_outer - start])
    with meter.stage("recovery", 0):
        basis = orthonormalize(outer).basis
        core, asymmetry = hermitian_core(gram(left_columns, basis), inner, gram(basis, InMemory(right.columns(0, num_inner))))
        values, rotation = torch.linalg.eigh(core)
        chosen = wanted(values, num_outer if k is None else k, which)
        vectors = multiply(basis, rotation[:, chosen])
    pairs = Pairs(
        values[chosen],
        vectors,
        tol=None,
        advice='a single-pass sketch does not iterate: judge each pair by its residual; use method="krylov" for more accuracy',
        diagnostics={"asymmetry": asymmetry, "rank": float(basis.shape[1])},
    )
    options = {
        "method": "seigh",
        "num_outer": num_outer,
        "num_inner": num_inner,
        "which": which,
        "sketch": sketch,
        "seed": seed,
    }
    return finish(meter, pairs, which=which, options=options)


def _check_sizes(size: int, num_outer: int, num_inner: int, k: int) -> None:
    if not 1 <= num_outer <= num_inner <= size:
        raise InvalidArgument(
            f"num_outer={num_outer} and num_inner={num_inner} with D = {size}: need 1 <= num_outer <= num_inner <= D"
        )
    if not 1 <= k <= num_outer:
        raise InvalidArgument(f"k={k}: a sketch with num_outer={num_outer} gives 1 to {num_outer} pairs")
