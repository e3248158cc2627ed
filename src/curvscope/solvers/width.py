"""How many vectors to multiply at a time, from what products and re-orthogonalisation cost on this machine."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from curvscope.operators import CurvatureOperator, Operator
from curvscope.operators.products.survey import seconds_of
from curvscope.tall import InMemory, gram, subtract

WIDTHS = (1, 2, 4, 8, 16, 32)
TIMED = (2, 8)
"""Widths whose products are timed; between and beyond them the cost of a vector is taken to be a + c / width."""
WORTH_MEASURING = 64
"""Pairs from which the choice matters; for fewer the narrowest safe block, 2, is taken."""
SAMPLE = (4, 20)
"""Columns of the basis that passes are timed with: what the block itself costs drops out of the difference."""


def expected_products(k: int, width: int) -> float:
    """Products that k pairs to a tolerance of 1e-3 need, their residuals included: an empirical rule, 2.3 k + 60 + 17 width.

    Source: measured on 3c3d (k = 100, 300; widths 1 to 16) within 10%; ``benchmarks/accuracy.py width``.
    """
    return 2.3 * k + 60 + 17 * width


def best_width(k: int, product: Mapping[int, float], sweep: Mapping[int, float]) -> int:
    """The narrowest width whose expected time is within 5% of the smallest: fewer products where time says little.

    Args:
        k: pairs.
        product: seconds of a product with one vector in blocks of each width.
        sweep: seconds of a Gram-Schmidt pass of a block of each width, for each column of the basis.

    >>> best_width(100, {1: 1.0, 2: 1.0, 16: 1.0}, {1: 0.0, 2: 0.0, 16: 0.0})
    1
    >>> best_width(1000, {2: 0.1, 16: 0.1}, {2: 1e-3, 16: 2e-3})
    16
    """

    def seconds(width: int) -> float:
        """Expected of the solve: its products, and as many passes over the growing basis as it has blocks."""
        count = expected_products(k, width)
        return count * product[width] + count / width * count / 2 * sweep[width]

    least = min(map(seconds, product))
    return min(width for width in product if seconds(width) <= 1.05 * least)


def measured_width(operator: Operator, k: int) -> int:
    """The block size for k eigenpairs of a curvature operator, from timed products and a timed pass; at least 2.

    Cost: 20 products on one mini-batch, and three passes each over 4 and over 20 columns; memory: 20 vectors.
    """
    if not isinstance(operator, CurvatureOperator) or k < WORTH_MEASURING:
        return default_width(k)
    low, high = (operator.cost_curve(TIMED)[width] for width in TIMED)
    saving = max(0.0, (low - high) / (1 / TIMED[0] - 1 / TIMED[1]))
    constant = low - saving / TIMED[0]
    widths = [width for width in WIDTHS[1:] if width <= max(2, k // 8)]
    product = {width: constant + saving / width for width in widths}
    return best_width(k, product, _sweep(operator, widths))


def default_width(k: int) -> int:
    """The block size for k eigenpairs where nothing was measured."""
    return max(2, min(16, k // 64))


def multiple_of(width: int, workers: int, size: int) -> int:
    """The next multiple of the number of workers, so that none of them is idle; at most D.

    >>> multiple_of(2, 3, 100), multiple_of(8, 2, 100)
    (3, 8)
    """
    return min(size, -(-width // workers) * workers)


def _sweep(operator: Operator, widths: list[int]) -> dict[int, float]:
    """Seconds that a further column of the basis adds to a Gram-Schmidt pass, by the width of the block."""
    size, (few, more) = operator.shape[0], SAMPLE
    basis = InMemory.empty(size, more, operator.dtype, operator.device)
    basis.tensor.fill_(1e-3)
    seconds = {}
    for width in widths:
        block = torch.zeros(width, size, dtype=operator.dtype, device=operator.device).T
        slow, fast = (_seconds(block, basis.leading(columns)) for columns in (more, few))
        seconds[width] = max(0.0, *seconds.values(), (slow - fast) / (more - few))  # a wider block never costs less
    return seconds


def _seconds(block: Tensor, basis: InMemory) -> float:
    """Of one pass, the fastest of three: the first pays for memory and threads."""
    return min(seconds_of(lambda: subtract(block, basis, gram(basis, InMemory(block))), block.device) for _ in range(3))
