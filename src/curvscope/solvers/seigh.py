"""SEIGH: eigenpairs of a Hermitian operator from one round of independent products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from curvscope.execution import Progress
from curvscope.execution.run import Run
from curvscope.operators import as_operator
from curvscope.sketches import TestMatrix, check_kind
from curvscope.solvers.finish import Pairs
from curvscope.solvers.footprint import fit_sketch
from curvscope.solvers.measure import Measured
from curvscope.solvers.meter import Meter
from curvscope.solvers.recovery import hermitian_core
from curvscope.solvers.sketched import draw, hermitian_request, pairs_of_core
from curvscope.solvers.solution import Solution
from curvscope.solvers.solve import solve
from curvscope.solvers.storage import Place
from curvscope.tall import InMemory, TallMatrix, orthonormalize
from curvscope.tall.algebra import small_dtype


def seigh(
    operator: Any,
    *,
    num_outer: int,
    num_inner: int | None = None,
    k: int | None = None,
    which: str = "LM",
    sketch: str = "gaussian",
    left_sketch: str = "sparse_sign",
    seed: int = 0,
    block_size: int | None = None,
    memory: int | str | None = None,
    run: Place | Run | None = None,
    progress: Progress = None,
) -> Solution:
    r"""Sketched eigendecomposition in a single pass: the paper's Alg. 2.

    With test matrices :math:`\Omega, \Psi` (D x n_inner, uncorrelated), measures :math:`A\Omega` once. Its first n_outer
    columns are recycled as the outer measurements, whose range gives Q; all of it gives the inner measurements
    :math:`\Psi^* A \Omega`, from which :func:`.recovery.hermitian_core` solves for the core of :math:`A \approx Q C Q^*`.

    Args:
        operator: Hermitian, real or complex; anything that ``as_operator`` takes.
        num_outer: dimension of the space that is found; at most ``num_inner``. See :func:`curvscope.sizes_for_rank`.
        num_inner: number of products; default ``min(2 num_outer, D)``.
        k: how many pairs to return; default all ``num_outer`` (fewer if the sketch has lower rank).
        which: LM, LA, SA or BE.
        sketch: kind of the right test matrix, which is multiplied with A; see :class:`.TestMatrix`.
        left_sketch: kind of the left one, which only compresses: sparse signs are as accurate as the others and cheap.
        seed: another one gives an independent sketch.
        block_size: columns a product call; default 32, fewer where memory is short. The result depends on it by rounding only.
        memory: bound for the resident memory of the whole process ("8GiB" or bytes): the block size, and with ``run`` whether
            matrices lie in memory, are chosen so that it holds; default: what is there and 0.8 of what is free.
        run: a directory that keeps measurements and results as they come: the same call goes on with an interrupted run, and a
            larger sketch reuses its measurements; see :func:`curvscope.eigsh`.
        progress: see :data:`.progress.Progress`.

    Returns:
        A solution whose status is "approximate": the method does not iterate, its residuals say how good each pair is.
        ``diagnostics``: "rank" of the sketch, "asymmetry" of the core before it was symmetrised.

    Cost: num_inner independent products and k more for the residuals, one pass; memory: D x num_outer entries three times,
        one block of each test matrix, and num_inner^2 in double precision.

    Raises:
        InvalidArgument: sizes out of order, unknown kinds, an operator that is not square or says that it is not Hermitian.
        NotHermitian: the measurements show that it is not. NotFinite: a product has NaN in it.
    Limits: weak when the eigenvalues decay slowly: the pairs near num_outer are poor; block Krylov is far more accurate for
        the same number of products.
    Source: Fernandez et al., TMLR 2025 (arXiv 2504.14701), Alg. 2.

    >>> A = torch.diag(torch.tensor([5.0, -4.0, 1.0] + [0.0] * 17))
    >>> solution = seigh(A, num_outer=6)
    >>> [round(float(value), 4) for value in solution.eigenvalues[:3]]
    [5.0, -4.0, 1.0]
    """
    operator = as_operator(operator)
    num_inner = min(2 * num_outer, operator.shape[0]) if num_inner is None else num_inner
    hermitian_request(operator, num_outer=num_outer, num_inner=num_inner, k=k, which=which, sketch=sketch)
    check_kind(left_sketch, operator.dtype)
    fitted = fit_sketch("seigh", operator, {"num_outer": num_outer, "num_inner": num_inner, "k": k}, memory, block_size, run)
    options = {
        "method": "seigh",
        "num_outer": num_outer,
        "num_inner": num_inner,
        "k": k,
        "which": which,
        "sketch": sketch,
        "left_sketch": left_sketch,
        "seed": seed,
        "block_size": fitted.block_size,
    }

    def find(meter: Meter) -> Pairs:
        right = draw(sketch, operator, seed=seed, role="right")
        left = draw(left_sketch, operator, seed=seed, role="left")
        with meter.stage("sketch", num_inner):
            outer, inner = _measure(meter, right, left, num_outer, num_inner, fitted.block_size)
        with meter.stage("recovery", 0):
            whole = orthonormalize(meter.workspace.working(outer))
            del outer
            compressed = left.adjoint_multiply(whole.basis, 0, num_inner)
            inner = torch.cat([compressed @ whole.coefficients, inner], dim=1)  # Psi* Y = (Psi* Q) R for the outer ones
            core, asymmetry = hermitian_core(compressed, inner, right.adjoint_multiply(whole.basis, 0, num_inner).mH)
            diagnostics = {"asymmetry": asymmetry, "rank": float(whole.basis.shape[1])}
            return pairs_of_core(whole.basis, core, k=k, which=which, diagnostics=diagnostics)

    free = ("num_outer", "num_inner", "k")
    return solve(operator, find, which=which, options=options, free=free, run=run, fitted=fitted, progress=progress)


def _measure(
    meter: Meter, right: TestMatrix, left: TestMatrix, num_outer: int, num_inner: int, block_size: int
) -> tuple[TallMatrix, Tensor]:
    """Outer measurements (D, num_outer), and Psi* (the further ones), each block compressed as it comes."""
    inner = torch.empty(num_inner, num_inner - num_outer, dtype=small_dtype(meter.operator.dtype))
    measured = Measured(meter, right, num_inner, block_size, kept=num_outer)
    for start, block in measured:
        stop, recycled = start + block.shape[1], max(0, num_outer - start)
        if recycled < block.shape[1]:
            further = InMemory(block[:, recycled:])
            inner[:, max(start, num_outer) - num_outer : stop - num_outer] = left.adjoint_multiply(further, 0, num_inner)
    return measured.matrix.leading(num_outer), inner
