"""Ritz values of Lanczos runs whose vectors are not kept, and rows of functions of the matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curvscope.estimators import reach
from curvscope.measurement import Recurrence


@dataclass(frozen=True)
class Ritz:
    r"""Ritz values of the start w, and rows with which f(A) w on some rows is about ``rows @ f(values)``.

    Attributes:
        values: (m,) float64, the Ritz values.
        weights: (m,) float64, :math:`\|w\|^2 S_{1j}^2`, so that w* f(A) w is about sum_j weights_j f(values_j).
        rows: (r, m) float64, the chosen rows of :math:`V S \operatorname{diag}(\|w\| S_{1j})`; (0, m) when none were asked for.
        residuals: (m,) float64, :math:`|\beta_m S_{mj}|`: an eigenvalue lies that close to each Ritz value.
    """

    values: Tensor
    weights: Tensor
    rows: Tensor
    residuals: Tensor

    def share_above(self, thresholds: Tensor) -> Tensor:
        """(m, K) float64 in [0, 1]: how much of each Ritz value's weight belongs to eigenvalues of at least each magnitude.

        A Ritz value that has converged is an eigenvalue, and counts or does not. Another one stands for the part of the
        spectrum about it: its weight is spread evenly over its :func:`.reach`, as far as its residual and at most half-way to
        its neighbours. Without this the projector's edge would be off by half a cell, always to one side.
        """
        low, high = (ends.T for ends in reach(self.values[None], self.residuals[None]))
        covered = (high - torch.maximum(low, thresholds)).clamp(min=0) + (torch.minimum(high, -thresholds) - low).clamp(min=0)
        hard = (self.values.abs()[:, None] >= thresholds).double()
        width = high - low
        return torch.where(width > 0, (covered / width.clamp(min=torch.finfo(torch.float64).tiny)).clamp(max=1.0), hard)


def ritz(recurrence: Recurrence, steps: int | None = None) -> Ritz:
    """Return the Ritz values of a recurrence after ``steps`` steps (None: all), without new products."""
    matrix = recurrence.matrix(steps)
    m = len(matrix)
    values, S = torch.linalg.eigh(matrix)
    first = recurrence.norm * S[0]
    residuals = (recurrence.beside[m - 1] * S[-1]).abs()
    return Ritz(values, first.square(), (recurrence.rows[:, :m] @ S) * first, residuals)
