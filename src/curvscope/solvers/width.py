"""How many vectors to multiply at a time, from what products and re-orthogonalisation cost on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch

from curvscope.operators import CurvatureOperator, Operator
from curvscope.tall import InMemory, gram, subtract

WIDTHS = (1, 2, 4, 8, 16, 32)
TIMED = (2, 8)
"""Widths whose products are timed; between and beyond them the cost of a vector is taken to be a + c / width."""
WORTH_MEASURING = 64
"""Pairs from which the choice matters; for fewer the narrowest safe block, 2, is taken."""
SAMPLE = 8


def expected_products(k: int, width: int) -> float:
    """Products that k pairs to a tolerance of 1e-3 need: an empirical rule, 2.3 k + 60 + 17 width.

    Source: measured on 3c3d (k = 100, 300; widths 1 to 16) within 10%; ``benchmarks/accuracy.py width``.
    """
    return 2.3 * k + 60 + 17 * width


def best_width(k: int, product: Mapping[int, float], sweep: Mapping[int, float]) -> int:
    """The width with the smallest expected time.

    Args:
        k: pairs.
        product: seconds of a product with one vector in blocks of each width.
        sweep: seconds of a Gram-Schmidt pass of a block of each width, for each column of the basis.

    >>> best_width(100, {1: 1.0, 2: 1.0, 16: 1.0}, {1: 0.0, 2: 0.0, 16: 0.0})
    1
    >>> best_width(1000, {1: 0.1, 2: 0.1, 16: 0.1}, {1: 1e-3, 2: 1e-3, 16: 2e-3})
    16
    """

    def seconds(width: int) -> float:
        count = expected_products(k, width)
        return count * product[width] + count / width * count / 2 * sweep[width]

    return min(product, key=seconds)


def measured_width(operator: Operator, k: int) -> int:
    """The block size for k eigenpairs of a curvature operator, from timed products and a timed pass; at least 2.

    Cost: 20 products on one mini-batch, and passes over 8 columns, each twice.
    """
    if not isinstance(operator, CurvatureOperator) or k < WORTH_MEASURING:
        return max(2, min(16, k // 64))
    low, high = (operator.cost_curve(TIMED)[width] for width in TIMED)
    saving = max(0.0, (low - high) / (1 / TIMED[0] - 1 / TIMED[1]))
    constant = low - saving / TIMED[0]
    widths = [width for width in WIDTHS[1:] if width <= max(2, k // 8)]
    product = {width: constant + saving / width for width in widths}
    return best_width(k, product, _sweep(operator, widths))


def _sweep(operator: Operator, widths: list[int]) -> dict[int, float]:
    """Seconds of a Gram-Schmidt pass for each column of the basis, by the width of the block."""
    size = operator.shape[0]
    basis = InMemory.empty(size, SAMPLE, operator.dtype, operator.device)
    basis.tensor.fill_(1e-3)
    seconds = {}
    for width in widths:
        block = torch.zeros(width, size, dtype=operator.dtype, device=operator.device).T
        for _ in range(2):  # the first call pays for memory and threads
            start = time.perf_counter()
            subtract(block, basis, gram(basis, InMemory(block)))
            seconds[width] = (time.perf_counter() - start) / SAMPLE
    return seconds
