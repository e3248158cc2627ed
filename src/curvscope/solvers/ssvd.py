"""SSVD: singular triplets of any operator from independent products with it and its adjoint."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.execution import Progress
from curvscope.operators import as_operator
from curvscope.sketches import TestMatrix, check_kind
from curvscope.solvers.measure import measure
from curvscope.solvers.meter import Meter
from curvscope.solvers.recovery import bearable_rank, generalized_nystrom_core, oversampled_core
from curvscope.solvers.singular import SingularSolution, finish_singular
from curvscope.solvers.sketched import check_block_size, check_sizes, draw
from curvscope.tall import InMemory, TallMatrix, orthonormalize
from curvscope.tall.algebra import small_dtype

SSVD_METHODS = ("oversampled", "nystrom", "hmt")

Factors = tuple[TallMatrix, Tensor, TallMatrix, int]
"""P, C, Q of A ~ P C Q*, and the rank of C."""


def ssvd(
    operator: Any,
    *,
    num_outer: int,
    num_inner: int | None = None,
    k: int | None = None,
    method: str = "oversampled",
    sketch: str = "gaussian",
    left_sketch: str = "sparse_sign",
    seed: int = 0,
    block_size: int = 32,
    progress: Progress = None,
) -> SingularSolution:
    r"""Sketched singular value decomposition: the paper's Alg. 1, and two relatives.

    - "oversampled" (Alg. 1): :math:`A\Omega` (n_inner products, the first n_outer recycled as outer measurements with range Q)
      and :math:`A^*\Gamma` (n_outer, range P); the core of :math:`A \approx Q C P^*` from :math:`\Psi^* A\Omega` by two
      least-squares problems. All products are independent of one another.
    - "nystrom", generalised: :math:`A\Omega` (n_outer) and :math:`A^*\Gamma` (n_inner); also one round. If n_inner < 2 n_outer,
      only as many directions are kept (never less than k) as :func:`.recovery.bearable_rank` finds.
    - "hmt": :math:`Q = \mathrm{orth}(A\Omega)`, then :math:`A^* Q`; two rounds, n_outer products each.

    Args:
        operator: m x n, real or complex, with products with its adjoint; anything that ``as_operator`` takes.
        num_outer: rank that is found; at most ``num_inner``. See :func:`curvscope.sizes_for_rank`.
        num_inner: default ``min(2 num_outer, m, n)``; no meaning for "hmt".
        k: how many triplets to return; default all.
        method: one of the above.
        sketch: kind of the test matrices that are multiplied with A and A*; see :class:`.TestMatrix`.
        left_sketch: kind of Psi, which only compresses.
        seed: another one gives an independent sketch.
        block_size: columns a product call.
        progress: see :data:`.progress.Progress`.

    Cost: num_outer + num_inner products ("hmt": 2 num_outer), and 2 k for the residuals; memory: (m + n) (num_outer + k)
        entries ("nystrom": n num_inner), one block of each test matrix, num_inner^2 in double precision.

    Raises:
        InvalidArgument: sizes out of order, unknown names, no adjoint. NotFinite: a product has NaN in it.
    Limits: weak when the singular values decay slowly.
    Source: Fernandez et al., TMLR 2025 (arXiv 2504.14701), Alg. 1; Tropp, Yurtsever, Udell, Cevher (SISC 2019); Nakatsukasa
        (2020); Halko, Martinsson, Tropp (SIREV 2011).

    >>> A = torch.zeros(30, 20, dtype=torch.float64)
    >>> A[:3, :3] = torch.diag(torch.tensor([5.0, 4.0, 1.0]))
    >>> [round(value, 6) for value in ssvd(A, num_outer=5, k=3).S.tolist()]
    [5.0, 4.0, 1.0]
    """
    operator = as_operator(operator)
    size = min(operator.shape)
    if method not in SSVD_METHODS:
        raise InvalidArgument(f"method={method!r}: choose one of {', '.join(SSVD_METHODS)}")
    if method == "hmt":
        if num_inner is not None:
            raise InvalidArgument('num_inner has no meaning for method="hmt": leave it out')
        num_inner = num_outer
    num_inner = min(2 * num_outer, size) if num_inner is None else num_inner
    check_sizes(size, num_outer, num_inner, num_outer if k is None else k)
    check_block_size(block_size)
    for kind in (sketch, left_sketch):
        check_kind(kind, operator.dtype)
    meter = Meter(operator, progress)
    right = draw(sketch, operator, seed=seed, role="right")
    match method:
        case "oversampled":
            outer_left = draw(sketch, operator, seed=seed, role="outer left", rows=operator.shape[0])
            inner_left = draw(left_sketch, operator, seed=seed, role="left", rows=operator.shape[0])
            factors = _oversampled(meter, right, outer_left, inner_left, num_outer, num_inner, block_size)
        case "nystrom":
            left = draw(sketch, operator, seed=seed, role="left", rows=operator.shape[0])
            factors = _generalized_nystrom(meter, right, left, (num_outer, num_inner), block_size, k or 1)
        case _:
            factors = _hmt(meter, right, num_outer, block_size)
    sizes = {"num_outer": num_outer, "num_inner": num_inner}
    options = {"method": method, **sizes, "sketch": sketch, "left_sketch": left_sketch, "seed": seed}
    basis, core, co_basis, rank = factors
    k = rank if k is None else k
    return finish_singular(meter, basis, core, co_basis, k=k, diagnostics={"rank": float(rank)}, options=options)


def _oversampled(
    meter: Meter,
    right: TestMatrix,
    outer_left: TestMatrix,
    inner_left: TestMatrix,
    num_outer: int,
    num_inner: int,
    block_size: int,
) -> Factors:
    operator = meter.operator
    outer = InMemory.empty(operator.shape[0], num_outer, operator.dtype, operator.device)
    inner = torch.empty(num_inner, num_inner, dtype=small_dtype(operator.dtype))
    with meter.stage("sketch", num_inner + num_outer):
        for start in range(0, num_inner, block_size):
            stop = min(start + block_size, num_inner)
            block = InMemory(meter.multiply(right.columns(start, stop)))
            inner[:, start:stop] = inner_left.adjoint_multiply(block, 0, num_inner)
            if start < num_outer:
                outer.write(start, block.columns(0, min(stop, num_outer) - start))
        co_outer = measure(meter, outer_left, num_outer, block_size, adjoint=True)
    with meter.stage("recovery", 0):
        basis, co_basis = orthonormalize(outer, into=outer).basis, orthonormalize(co_outer, into=co_outer).basis
        compressed = inner_left.adjoint_multiply(basis, 0, num_inner)
        core = oversampled_core(compressed, inner, right.adjoint_multiply(co_basis, 0, num_inner).mH)
    return basis, core, co_basis, min(core.shape)


def _generalized_nystrom(
    meter: Meter, right: TestMatrix, left: TestMatrix, sizes: tuple[int, int], block_size: int, least: int
) -> Factors:
    num_outer, num_inner = sizes
    with meter.stage("sketch", num_outer + num_inner):
        outer = measure(meter, right, num_outer, block_size)
        co_outer = measure(meter, left, num_inner, block_size, adjoint=True)
    with meter.stage("recovery", 0):
        whole = orthonormalize(outer, into=outer)
        co_range = orthonormalize(co_outer, into=co_outer)
        turn, found, _ = torch.linalg.svd(whole.coefficients, full_matrices=False)
        if num_inner < 2 * num_outer:
            turn = turn[:, : max(least, bearable_rank(found, num_inner))]
        compressed = left.adjoint_multiply(whole.basis, 0, num_inner) @ turn
        core = turn @ generalized_nystrom_core(compressed, co_range.coefficients)
    return whole.basis, core, co_range.basis, turn.shape[1]


def _hmt(meter: Meter, right: TestMatrix, num_outer: int, block_size: int) -> Factors:
    with meter.stage("sketch", num_outer):
        outer = measure(meter, right, num_outer, block_size)
    with meter.stage("orthonormalisation", 0):
        basis = orthonormalize(outer, into=outer).basis
    with meter.stage("compression", basis.shape[1]):
        rows = InMemory.empty(meter.operator.shape[1], basis.shape[1], meter.operator.dtype, meter.operator.device)
        for start in range(0, basis.shape[1], block_size):
            stop = min(start + block_size, basis.shape[1])
            rows.write(start, meter.multiply_adjoint(basis.columns(start, stop)))
    with meter.stage("recovery", 0):
        co_range = orthonormalize(rows, into=rows)
    return basis, co_range.coefficients.mH, co_range.basis, co_range.basis.shape[1]
