"""How many vectors to multiply at a time, by rule: no clock decides, so that results have the same bits on every run."""

from __future__ import annotations

PAIRS_A_COLUMN = 128
"""Pairs for which blocks are one column wider.

Narrow blocks need fewer products; wide ones share passes over a long basis, whose cost grows with the square of k.
"""
WIDEST = 16


def expected_products(k: int, width: int) -> float:
    """Products that k pairs to a tolerance of 1e-3 need, their residuals included: an empirical rule, 2.3 k + 60 + 17 width.

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
