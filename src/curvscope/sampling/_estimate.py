r"""Bias-corrected eigenvalues of the population's matrix, with intervals that are narrow where eigenvalues are separated.

.. math:: \hat\lambda_j = \lambda_j(H) - b_j, \qquad h_j = \sqrt{(t\, s_j)^2 + b_j^2}, \qquad
    [\hat\lambda_j - h_j,\ \hat\lambda_j + h_j / (1 - h_j / \lambda_j(H))]

b is the bias by halving, s the standard error by deleting folds, t Student's quantile. The correction is itself uncertain, by
about its size. The upper half is longer: means of squares are skewed to the right, and their spread grows with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from curvscope.sampling._folded import Folded, jackknife_spread, largest, mean_core, without_each
from curvscope.sampling._student import student_quantile

SPLITS = 100
"""Random halvings in the small basis, over which the part of the bias that eigenvalues cause one another is averaged."""
SEPARATED = 2.0
"""Standard errors between neighbours from which an eigenvalue has an estimate of its own.

With 2, 88 % of the eigenvalues have one whose true gaps are at least 2 standard deviations (200 samples or more), and intervals
hold in 96 % of the cases; copies and members of close groups have one in 9 % of the cases, which holds in 88 % of them
(benchmarks/population.py).
"""
MOST_RELATIVE = 0.9
"""Half-width over the eigenvalue at which the upper half-width ends to grow, and the eigenvalue counts as undetermined."""


@dataclass(frozen=True)
class Estimates:
    """Estimates of eigenvalues or of other statistics, with their intervals.

    Attributes:
        value: float64 (k,), corrected for bias.
        lower: float64 (k,).
        upper: float64 (k,).
        bias: float64 (k,), what was subtracted from the sample's values.
        spread: float64 (k,), standard error of the sample's values.
        relative: float64 (k,), the lower half-width over the magnitude of the sample's value.
    """

    value: Tensor
    lower: Tensor
    upper: Tensor
    bias: Tensor
    spread: Tensor
    relative: Tensor


@dataclass(frozen=True)
class Statistics:
    """Statistics of the k largest eigenvalues, of which every estimate is a linear function.

    Attributes:
        value: float64 (k,), of the sample.
        bias: (k,), by halving.
        together: (k,), of all folds in the basis.
        without: (G, k), without each fold.
    """

    value: Tensor
    bias: Tensor
    together: Tensor
    without: Tensor


def statistics(folded: Folded, k: int) -> Statistics:
    """Return values, bias and leave-one-out values of the k largest eigenvalues.

    The eigenvalues without a fold are those in the basis, which holds the pairs of the whole and of both halves.
    Halving once tells the bias that the bulk of the spectrum causes. What close eigenvalues cause one another is a square of
    a few random numbers, so it is averaged over many halvings in the span of the known pairs.

    Args:
        folded: the folds' matrices.
        k: number of eigenvalues.

    Cost: (G + 200) eigenvalue problems of sizes m and K; no products.
    """
    value = folded.whole.values[:k]
    halves = sum(pairs.values[:k] for pairs in folded.halves) / 2
    in_span = folded.projected(folded.whole.vectors)
    once = _mean_over_halves(in_span, k, torch.arange(len(folded.shares), device="cpu")[None])
    average = _mean_over_halves(in_span, k, _random_orders(len(folded.shares)))
    return Statistics(
        value,
        halves - once + average - value,
        largest(mean_core(folded.cores, folded.shares), k),
        largest(without_each(folded.cores, folded.shares), k),
    )


def estimates(
    folded: Folded,
    weights: Tensor,
    level: float = 0.95,
    numerical: Tensor | float = 0.0,
    known: Statistics | None = None,
) -> Estimates:
    """Return estimates of linear combinations of the k largest eigenvalues of the population's matrix.

    Args:
        folded: the folds' matrices.
        weights: (s, k), a row for each combination; the identity for the eigenvalues themselves.
        level: of each interval.
        numerical: bounds of the numerical errors of the values, added to the half-widths.
        known: :func:`statistics` of these folds; None: they are computed.

    >>> from curvscope.sampling._folded import Pairs
    >>> cores = torch.tensor([3.0, 5.0, 3.0, 5.0], dtype=torch.float64).reshape(4, 1, 1)
    >>> pairs = Pairs(torch.tensor([4.0], dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64), rest=0.0)
    >>> found = estimates(Folded(torch.ones(4) / 4, cores, pairs, (pairs, pairs)), torch.ones(1, 1, dtype=torch.float64))
    >>> found.value.tolist(), round(float(found.spread), 4)       # a mean has no bias; std / sqrt(4)
    ([4.0], 0.5774)
    """
    known = statistics(folded, weights.shape[1]) if known is None else known
    value, bias = weights @ known.value, weights @ known.bias
    spread = jackknife_spread(weights @ known.together, known.without @ weights.mT, folded.shares)
    quantile = student_quantile((1 + level) / 2, len(folded.shares) - 1)
    half = torch.hypot(quantile * spread, bias) + numerical
    relative = half / value.abs().clamp(min=torch.finfo(value.dtype).tiny)
    below, above = half, half / (1 - relative.clamp(max=MOST_RELATIVE))
    below, above = torch.where(value < 0, above, below), torch.where(value < 0, below, above)
    centre = value - bias
    return Estimates(centre, centre - below, centre + above, bias, spread, relative)


def close_groups(values: Tensor, spread: Tensor, following: float | None) -> list[tuple[int, int]]:
    """Return first and last place of each group of eigenvalues that the sample does not tell apart, in order.

    Neighbours belong to one group if their gap is at most :data:`SEPARATED` times the larger standard error. A group that may
    go on beyond the last value ends one place beyond it.

    Args:
        values: (k,), descending.
        spread: (k,).
        following: the next eigenvalue; None: there is none.

    >>> close_groups(torch.tensor([9.0, 5.0, 4.9]), torch.tensor([0.1, 0.1, 0.1]), 1.0)
    [(0, 0), (1, 2)]
    """
    groups, first, k = [], 0, len(values)
    for place in range(k):
        next_value = float(values[place + 1]) if place + 1 < k else following
        larger = float(spread[place : place + 2].max())
        if next_value is None or float(values[place]) - next_value > SEPARATED * larger:
            groups.append((first, place))
            first = place + 1
    return groups if first == k else [*groups, (first, k)]


@lru_cache(maxsize=4)
def _random_orders(count: int) -> Tensor:
    """(SPLITS, count) int64: orders of the folds."""
    generator = torch.Generator().manual_seed(0)
    return torch.stack([torch.randperm(count, generator=generator, device="cpu") for _ in range(SPLITS)])


def _mean_over_halves(folded: Folded, k: int, orders: Tensor) -> Tensor:
    """The k largest eigenvalues of both halves of the folds in each order, averaged over halves and orders."""
    count, half = len(folded.shares), len(folded.shares) // 2
    weights = torch.zeros(2, len(orders), count, dtype=torch.float64, device="cpu")
    for place, part in enumerate((orders[:, :half], orders[:, half:])):
        weights[place].scatter_(1, part, folded.shares[part].double())
    weights = weights.reshape(-1, count)
    means = (weights / weights.sum(1, keepdim=True)) @ folded.cores.flatten(1)
    return largest(means.reshape(-1, *folded.cores.shape[1:]), k).mean(0)
