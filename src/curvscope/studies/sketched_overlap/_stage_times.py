"""Seconds of each stage of a sketched eigendecomposition, at full size: products extrapolated or not, the rest measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, OutOfBudget
from curvscope.operators import CurvatureOperator
from curvscope.operators.products import available_bytes
from curvscope.sketches import TestMatrix
from curvscope.solvers.sketched import core_pairs, least_squares
from curvscope.subspaces import Ranking, overlap
from curvscope.system import SAFE_SHARE, Progress, as_text, default_memory, long_work, stage
from curvscope.tall import InMemory, OnHost, TallMatrix, orthonormalize

FEWEST = 100
"""Products from which an extrapolation may be quoted."""


def stage_times(
    H: CurvatureOperator,
    ranking: Ranking,
    *,
    num_outer: int,
    num_inner: int,
    timed_products: int | None = None,
    block_size: int = 8,
    seed: int = 0,
    progress: Progress = None,
) -> dict[str, Any]:
    """Seconds of SEIGH's stages, each timed by itself, with as many columns as the decomposition would have.

    Products are of the operator itself. The thin stages work on matrices of the right size and kind with made-up entries:
    their cost does not depend on what is in them (well-conditioned outer measurements, as here, are orthonormalised in the
    fewest passes).

    Args:
        H: the operator, on whatever device it is.
        ranking: of its parameters.
        num_outer: n.
        num_inner: number of products of the whole decomposition.
        timed_products: how many are made and timed, the others extrapolated; None: all.
        block_size: columns at a time.
        seed: of the test matrices.
        progress: see :data:`.progress.Progress`.

    Returns:
        Seconds by stage ("first product", "test vectors", "products", "compression", "QR", "core", "overlap"), their
        ``total``, ``timed_products``, whether the products' time is ``extrapolated``, and where the ``basis`` was: on the
        operator's device, or on the host if that is another one and two matrices D x n_outer did not fit.

    Raises:
        InvalidArgument: sizes out of order. OutOfBudget: D x n_outer does not fit into memory twice.
    """
    timed = num_inner if timed_products is None else min(timed_products, num_inner)
    if not 1 <= num_outer < num_inner or timed < 1 or block_size < 1:
        raise InvalidArgument(f"num_outer={num_outer}, num_inner={num_inner}, timed_products={timed}: not in order")
    size, width = H.shape[0], min(block_size, timed)
    place = _place(H, size * num_outer * H.dtype.itemsize)
    left = TestMatrix("sparse_sign", size, seed=seed, role="left", dtype=H.dtype)
    seconds = _measuring(H, left, (num_outer, num_inner, timed, width), seed, progress)
    thin, kept = _thin(H, left, (num_outer, num_inner), seed, place)
    curve = _timed(H, lambda: overlap(kept, ranking, check=False))[1]
    seconds |= {**thin, "overlap": curve}
    return {
        "seconds": seconds,
        "total": sum(seconds.values()),
        "timed_products": timed,
        "extrapolated": timed < num_inner,
        "basis": "host" if place is OnHost else "device",
        "a_product": seconds["products"] / num_inner,
        "strategy": H.strategy_report.get("strategy"),
    }


def _measuring(
    H: CurvatureOperator, left: TestMatrix, sizes: tuple[int, int, int, int], seed: int, progress: Progress
) -> dict[str, float]:
    """Test vectors, products, and the compression of those that are not kept."""
    num_outer, num_inner, timed, width = sizes
    right = TestMatrix("ssrft", H.shape[0], seed=seed, role="right", dtype=H.dtype, device=H.device)
    vectors, drawn = _timed(H, lambda: right.columns(0, width))
    with long_work(num_inner):
        _, first = _timed(H, lambda: H @ vectors[:, :1])
        _ = H @ vectors  # the choice of a strategy for this width is not part of what a product costs
    product, multiplied = _products(H, vectors, timed, progress)
    _, compressed = _timed(H, lambda: left.adjoint_multiply(InMemory(product), 0, num_inner))
    return {
        "first product": first,
        "test vectors": drawn * num_inner / width,
        "products": multiplied * num_inner / timed,
        "compression": compressed * (num_inner - num_outer) / width,
    }


def _products(H: CurvatureOperator, vectors: Tensor, timed: int, progress: Progress) -> tuple[Tensor, float]:
    """At least ``timed`` products, block by block; their seconds scaled to exactly so many."""
    made, total, width = 0, 0.0, vectors.shape[1]
    with stage("timed products", timed, progress) as advance:
        while made < timed:
            product, spent = _timed(H, lambda: H @ vectors)
            made, total = made + width, total + spent
            advance(width)
    return product, total * timed / made


def _thin(
    H: CurvatureOperator, left: TestMatrix, sizes: tuple[int, int], seed: int, place: type[InMemory] | type[OnHost]
) -> tuple[dict[str, float], TallMatrix]:
    """QR and core of a full-size sketch of made-up measurements, and its basis."""
    (num_outer, num_inner), size, generator = sizes, H.shape[0], torch.Generator(H.device).manual_seed(seed)
    outer = place.empty(size, num_outer, H.dtype, H.device)
    for start in range(0, num_outer, 32):
        stop = min(start + 32, num_outer)
        outer.write(start, torch.randn(size, stop - start, generator=generator, dtype=H.dtype, device=H.device))
    whole, factorised = _timed(H, lambda: orthonormalize(outer, into=outer))
    small = torch.Generator().manual_seed(seed)
    across = torch.randn(num_outer, num_inner, generator=small, dtype=torch.float64, device="cpu")
    further = torch.randn(num_inner, num_inner - num_outer, generator=small, dtype=torch.float64, device="cpu")

    def core() -> Any:
        """The small problem, and the vectors from the basis."""
        right = least_squares(whole.coefficients.mH, across, rtol=0.0)
        return core_pairs(
            whole, left.adjoint_multiply(whole.basis, 0, num_inner), further, right, "published", k=None, which="LM"
        )

    pairs, solved = _timed(H, core)
    return {"QR": factorised, "core": solved}, pairs.eigenvectors


def _timed(H: CurvatureOperator, work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result, and its wall seconds; a GPU is waited for."""
    _wait(H)
    started = time.perf_counter()
    made = work()
    _wait(H)
    return made, time.perf_counter() - started


def _wait(H: CurvatureOperator) -> None:
    if H.device.type == "cuda":
        torch.cuda.synchronize(H.device)


def _place(H: CurvatureOperator, matrix: int) -> type[InMemory] | type[OnHost]:
    """Return where basis and vectors, which are there at the same time, have room."""
    room = default_memory()
    if H.device.type == "cuda":
        if 2 * matrix <= SAFE_SHARE * available_bytes(H.device):
            return InMemory
        if 2 * matrix <= room:
            return OnHost
    if 2 * matrix > room:
        raise OutOfBudget(f"two matrices of {as_text(matrix)} do not fit into {as_text(room)}: choose a smaller num_outer")
    return InMemory
