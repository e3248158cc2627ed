"""How many vectors to multiply at a time, by rule: no clock decides, so that results have the same bits on every run."""

from __future__ import annotations

import math

PAIRS_A_COLUMN = 128
"""Pairs for which blocks are one column wider.

Narrow blocks need fewer products; wide ones share passes over a long basis, whose cost grows with the square of k.
"""
WIDEST = 16


def expected_products(k: int, width: int) -> float:
    """Products that k pairs to a tolerance of 1e-3 need, their residuals included: an empirical rule.

    19 k^(3/4) + 17 (width - 1) + k for few pairs, and never more than :func:`products_for_many`.

    Source: medians of known matrices for one vector at a time, residuals not included: 19, 61, 129 and 204 for k = 1, 5, 20,
    100; ``benchmarks/known_matrices.py``. Spectra differ: nine solves in ten take 0.15 to 5 times as many.

    >>> [round(expected_products(k, 1)) for k in (1, 5, 20, 100)]
    [20, 69, 123, 307]
    """
    return min(19 * math.pow(k, 0.75) + 17 * (width - 1) + k, products_for_many(k, width))


def products_for_many(k: int, width: int) -> float:
    """Products that many pairs need, or few ones whose spectrum has no gaps, residuals included: 2.3 k + 60 + 17 width.

    Source: measured on 3c3d (k = 100, 300; widths 1 to 16) within 10%; ``benchmarks/accuracy.py width``.
    """
    return 2.3 * k + 60 + 17 * width


def default_width(k: int) -> int:
    """The block size for k pairs: one column for each 128 of them, 1 to 16.

    >>> [default_width(k) for k in (1, 100, 300, 1000, 5000)]
    [1, 1, 2, 7, 16]
    """
    return max(1, min(WIDEST, k // PAIRS_A_COLUMN))


def multiple_of(width: int, workers: int, size: int) -> int:
    """The next multiple of the number of workers, so that none of them is idle; at most D.

    >>> multiple_of(2, 3, 100), multiple_of(8, 2, 100)
    (3, 8)
    """
    return min(size, -(-width // workers) * workers)
