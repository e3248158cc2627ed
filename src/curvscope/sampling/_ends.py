"""Places in a solution of the pairs of one end of the spectrum."""

from __future__ import annotations

import torch
from torch import Tensor

from curvscope.solvers import Solution


def places_of(solution: Solution, sign: int) -> Tensor:
    """Return the places of the pairs of one end, outermost first.

    Args:
        solution: in any of the orders.
        sign: 1 for the largest eigenvalues, -1 for the smallest.

    >>> import curvscope as cs
    >>> solution = cs.eigsh(torch.diag(torch.tensor([3.0, -2.0, 1.0])), k=3)
    >>> places_of(solution, 1).tolist(), places_of(solution, -1).tolist()
    ([0, 2], [1])
    """
    values, k = solution.eigenvalues, solution.k
    match solution.order:
        case "LA" | "SA":
            chosen = torch.arange(k if (solution.order == "LA") == (sign > 0) else 0, device="cpu")
        case "BE":
            upper = k - k // 2
            chosen = torch.arange(upper, device="cpu") if sign > 0 else torch.arange(upper, k, device="cpu")
        case _:
            chosen = ((sign * values) > 0).nonzero().flatten()
    return chosen[(sign * values[chosen]).argsort(descending=True)]
