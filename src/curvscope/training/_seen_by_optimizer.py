"""The curvature as the optimizer sees it, followed along training: both ends, and all eigenvalues near the threshold."""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import Tensor

from curvscope.operators import CurvatureOperator, preconditioned
from curvscope.operators.optimizers import has_preconditioner, stability_threshold
from curvscope.solvers import Solution, eigsh

PREFIX = "preconditioned/"
MOST_PAIRS = 64
"""Pairs at which the number of them stops growing."""
ROOT = 0.5
"""Residuals of tol^0.5 give eigenvalues to about tol, which are what is followed."""


class SeenByOptimizer:
    """Follows the eigenvalues of P^(-1/2) H P^(-1/2) that are above a fraction of the optimizer's threshold.

    Args:
        operator: H, which is moved to the present parameters by the caller.
        optimizer: of torch.optim, which trains its model.
        fraction: of the threshold, above which all eigenvalues are found.
        tol: of the eigenvalues, relative.
        seed: of the random vectors.

    Raises:
        InvalidType, InvalidArgument: an optimizer that cannot be read, see :func:`curvscope.stability_threshold`.
    """

    def __init__(self, operator: CurvatureOperator, optimizer: Any, fraction: float, tol: float, seed: int) -> None:
        stability_threshold(optimizer)
        self.operator, self.optimizer, self.fraction, self.tol, self.seed = operator, optimizer, fraction, tol, seed
        self._tops: Tensor | None = None
        self._bottom: Tensor | None = None
        self._pairs = 1

    def check(self) -> tuple[dict[str, float], int]:
        """Return what is found at the present parameters and state, and the products that it cost.

        Cost: a few products for each pair, fewer once the last check's vectors are a start; memory: the solver's basis.
        """
        if not has_preconditioner(self.optimizer):
            names = ("largest", "smallest", "threshold", "over_threshold", "above")
            return {PREFIX + name: math.nan for name in names} | {f"{PREFIX}products": 0.0}, 0
        matrix = preconditioned(self.operator, self.optimizer)
        assert matrix.threshold is not None
        threshold, size = float(matrix.threshold), matrix.shape[0]
        count, products = min(self._pairs, size), 0
        top = self._solve(matrix, count, "LA", self._tops)
        products += top.products
        while count < min(size, MOST_PAIRS) and float(top.eigenvalues.min()) > self.fraction * threshold:
            count = min(2 * count, size, MOST_PAIRS)
            top = self._solve(matrix, count, "LA", top.eigenvectors.to_tensor())
            products += top.products
        bottom = self._solve(matrix, 1, "SA", self._bottom)
        products += bottom.products
        above = int((top.eigenvalues > self.fraction * threshold).sum())
        self._pairs = min(above + 1, MOST_PAIRS)
        self._tops, self._bottom = top.eigenvectors.to_tensor(), bottom.eigenvectors.to_tensor()
        largest = float(top.eigenvalues.max())
        found = {"largest": largest, "smallest": float(bottom.eigenvalues.min()), "threshold": threshold}
        found |= {"over_threshold": largest / threshold, "above": float(above), "products": float(products)}
        return {PREFIX + name: value for name, value in found.items()}, products

    def _solve(self, matrix: Any, count: int, which: Literal["LA", "SA"], start: Tensor | None) -> Solution:
        tol = self.tol**ROOT
        return eigsh(matrix, count, which=which, method="krylov", tol=tol, v0=start, seed=self.seed, progress=False)
