"""Quantiles of Student's distribution at any level, for whole degrees of freedom."""

from __future__ import annotations

import math
from functools import lru_cache

HALVINGS = 200
"""Of an interval of doubles: more than enough to end at neighbours."""


@lru_cache(maxsize=256)
def student_quantile(probability: float, degrees: int) -> float:
    """Return the number that a Student variable stays below with a probability above 1/2.

    Source: Abramowitz and Stegun 26.7.3 and 26.7.4, finite sums for whole degrees of freedom, and bisection.

    >>> round(student_quantile(0.975, 9), 4), round(student_quantile(0.99, 1), 3)
    (2.2622, 31.821)
    """
    low, high = 0.0, 1.0
    while _inside(high, degrees) < 2 * probability - 1:
        low, high = high, 2 * high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _inside(middle, degrees) < 2 * probability - 1 else (low, middle)
    return high


def _inside(bound: float, degrees: int) -> float:
    """Return the probability of the interval from -bound to bound."""
    angle = math.atan(bound / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for number in range(odd, degrees - 1, 2):
        total += term
        term *= cosine * cosine * (number + 1) / (number + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
