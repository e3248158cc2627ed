"""What one run of an iteration on a block of right-hand sides has to say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Multiply = Callable[[Tensor], Tensor]
"""(A + damping I) @ block, float64 in and out."""
Outcome = Literal["done", "budget", "indefinite", "singular"]


@dataclass
class Iterated:
    """Result of an iteration.

    Attributes:
        x: (D, n) float64, what it adds to the solution.
        outcome: "done": its own residuals reached the targets; "budget": no products left; "indefinite": CG met a direction
            along which the matrix is not positive; "singular": a direction that the matrix maps to rounding, or residuals that
            it maps to rounding.
        low: smallest Rayleigh quotient or Ritz value that was met, in the inner product of the preconditioner.
        high: largest.
    """

    x: Tensor
    outcome: Outcome
    low: float = float("inf")
    high: float = float("-inf")


def within_reach(targets: Tensor, x: Tensor, norm: float, unit: float) -> Tensor:
    """Targets less the rounding of A x, of which an iteration's own residuals know nothing: fresh ones have it.

    At most half of a target is taken off: below that only a restart from fresh residuals helps.
    """
    sizes: Tensor = torch.linalg.vector_norm(x, dim=0).cpu()
    return torch.maximum(targets - 2 * unit * norm * sizes, targets / 2)


def column_norms(basis: Tensor, coefficients: Tensor, *, is_orthonormal: bool) -> Tensor:
    """Norms of the columns of basis @ coefficients, float64 on the CPU."""
    columns = coefficients if is_orthonormal else basis @ coefficients.to(basis.device)
    norms: Tensor = torch.linalg.vector_norm(columns, dim=0)
    return norms.cpu()
