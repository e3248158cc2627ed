"""The distribution function between quadrature nodes: where the weight of a node may lie."""

from __future__ import annotations

import torch
from torch import Tensor


def cells(nodes: Tensor, radii: Tensor) -> tuple[Tensor, Tensor]:
    """(left, right) ends of the interval over which the weight of each node is spread evenly, (q, m) each.

    A Gauss quadrature puts all weight on its nodes; the measure behind it has the weight of a node between its neighbours
    (Chebyshev, Markov, Stieltjes), and an eigenvalue within the node's radius. So a node's cell reaches half-way to its
    neighbours, and not farther than its radius: a converged node is an atom, unresolved ones make a histogram.
    """
    middles = (nodes[:, 1:] + nodes[:, :-1]) / 2
    left, right = nodes - radii, nodes + radii
    left[:, 1:] = torch.maximum(left[:, 1:], middles)
    right[:, :-1] = torch.minimum(right[:, :-1], middles)
    return left, right


def cumulative(left: Tensor, right: Tensor, weights: Tensor, points: Tensor, *, inclusive: bool = True) -> Tensor:
    """Weight up to each point, (q, p); atoms at a point count with ``inclusive``.

    Cost: O(q m log m + q p log m).
    """
    result = torch.empty(len(weights), len(points), dtype=torch.float64)
    for row in range(len(weights)):
        start, end, weight = left[row], right[row], weights[row]
        whole = torch.cat([torch.zeros(1, dtype=torch.float64), weight.cumsum(0)])
        done = torch.searchsorted(end.contiguous(), points, right=inclusive)  # cells that end before the point
        inside = done.clamp(max=len(weight) - 1)
        width = (end - start)[inside]
        share = torch.where(width > 0, (points - start[inside]) / width.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
        share = torch.where(done < len(weight), share.clamp(0.0, 1.0), 0.0)
        result[row] = whole[done] + share * weight[inside]
    return result


def distance(breaks: Tensor, above: Tensor, below: Tensor) -> float:
    """Integral of |F - G| between breakpoints, F - G linear between them.

    Args:
        breaks: ascending, (n,).
        above: F - G just above each breakpoint.
        below: F - G just below each.
    """
    width, a, b = breaks.diff(), above[:-1], below[1:]
    same = a * b >= 0
    total = a.abs() + b.abs()
    crossing = (a.square() + b.square()) / (2 * total).clamp(min=torch.finfo(torch.float64).tiny)
    return float((width * torch.where(same, total / 2, crossing)).sum())
