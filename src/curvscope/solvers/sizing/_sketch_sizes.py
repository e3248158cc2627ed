"""How large a sketch should be: from a rank, from a budget of products, or from a budget of memory."""

from __future__ import annotations

import math
from typing import NamedTuple

from curvscope.errors import InvalidArgument
from curvscope.system import checked


class SketchSizes(NamedTuple):
    """Numbers of outer and inner measurements, for :func:`curvscope.seigh` and :func:`curvscope.ssvd`."""

    num_outer: int
    num_inner: int


@checked
def sizes_for_rank(rank: int, *, is_complex: bool = False, size: int | None = None) -> SketchSizes:
    """Sizes that find a rank-r approximation nearly as good as the best one: 4 r + a outer, 2 (4 r + a) + a inner.

    a is 1 for real operators and 0 for complex ones: the smallest core for which the expected error is bounded.

    Args:
        rank: r.
        is_complex: whether the operator is complex.
        size: D (the smaller side, if rectangular); the sizes are cut there.

    Source: Tropp, Yurtsever, Udell, Cevher (SISC 2019), section 5.

    >>> sizes_for_rank(10)
    SketchSizes(num_outer=41, num_inner=83)
    """
    if rank < 1:
        raise InvalidArgument(f"rank={rank}: choose at least 1")
    extra = 0 if is_complex else 1
    outer = 4 * rank + extra
    return _cut(outer, 2 * outer + extra, size)


@checked
def sizes_for_products(products: int, *, rectangular: bool = False, size: int | None = None) -> SketchSizes:
    """The sizes that use a budget of products: three quarters as many outer as inner measurements; half, if rectangular.

    For :func:`curvscope.seigh`, whose Hermitian core needs few measurements beside the outer ones: more of these find a better
    space (``benchmarks/sketches.py``). Its ``core="published"`` needs twice as many inner as outer measurements.

    Args:
        products: how many vectors may be multiplied with the operator (and, if rectangular, its adjoint), certificate not
            counted.
        rectangular: for :func:`curvscope.ssvd`, whose num_outer products with the adjoint come on top of num_inner.
        size: D (the smaller side, if rectangular); the sizes are cut there.

    >>> sizes_for_products(710), sizes_for_products(600, rectangular=True)
    (SketchSizes(num_outer=532, num_inner=710), SketchSizes(num_outer=200, num_inner=400))
    """
    least = 3 if rectangular else 2
    if products < least:
        raise InvalidArgument(f"products={products}: a sketch needs at least {least}")
    outer = products // 3 if rectangular else _outer_of(products)
    return _cut(outer, products - outer if rectangular else products, size)


def sizes_for_pairs(method: str, k: int, size: int, max_products: int | None = None) -> SketchSizes:
    """The sizes of a sketch for k pairs: those that use ``max_products``, 4 k of them by default.

    Args:
        method: "seigh", "hmt", "nystrom" or "singlepass"; the last two have outer measurements only, "hmt" as many inner ones.
        k: number of pairs.
        size: D.
        max_products: the budget.

    Raises:
        InvalidArgument: fewer products than k pairs need.

    >>> sizes_for_pairs("seigh", 10, 1000), sizes_for_pairs("hmt", 10, 1000)
    (SketchSizes(num_outer=30, num_inner=40), SketchSizes(num_outer=20, num_inner=20))
    """
    budget = min(4 * k if max_products is None else max_products, 2 * size if method == "hmt" else size)
    needed = 2 * k if method == "hmt" else k
    if budget < needed:
        raise InvalidArgument(f'max_products={budget} is too few for k={k} with method="{method}": allow at least {needed}')
    match method:
        case "hmt":
            return SketchSizes(budget // 2, budget // 2)
        case "nystrom" | "singlepass":
            return SketchSizes(budget, budget)
    return SketchSizes(max(k, _outer_of(budget)), budget)


def _outer_of(products: int) -> int:
    """Outer measurements among so many products of :func:`curvscope.seigh`."""
    return max(1, 3 * products // 4)


@checked
def sizes_for_memory(numbers: int, rows: int, columns: int, *, is_complex: bool = False) -> SketchSizes:
    """The sizes whose measurements, k (m + n) outer and s^2 inner numbers, fit a budget, s about 2 k.

    Args:
        numbers: T, how many numbers may be stored: bytes / bytes an entry.
        rows: m.
        columns: n; for a Hermitian operator, whose outer measurements are one-sided, pass 0.
        is_complex: whether the operator is complex.

    Source: Tropp, Yurtsever, Udell, Cevher (SISC 2019), section 5.

    >>> sizes_for_memory(1_000_000, 2000, 1000)
    SketchSizes(num_outer=249, num_inner=502)
    """
    extra = 0 if is_complex else 1
    both = rows + columns
    root = math.sqrt((both + 4 * extra) ** 2 + 16 * (numbers - extra**2)) if numbers > extra else 0.0
    outer = math.floor((root - (both + 4 * extra)) / 8)
    if outer < 1:
        raise InvalidArgument(
            f"{numbers} numbers hold no sketch of a {rows} x {columns} operator: allow {both + 4 + 4 * extra}"
        )
    inner = math.isqrt(numbers - outer * both)
    size = min(side for side in (rows, columns) if side)
    return _cut(outer, inner, size)


def _cut(outer: int, inner: int, size: int | None) -> SketchSizes:
    if size is None:
        return SketchSizes(outer, inner)
    inner = min(inner, size)
    return SketchSizes(min(outer, inner), inner)
