"""The second moment of the mini-batches' gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Unpack, overload

import torch
from torch import Tensor, nn

from curvscope.operators._algebra import Composable, Sum
from curvscope.operators._identity import of_objective
from curvscope.operators._parameters import Parameters
from curvscope.operators._rank import RankBound
from curvscope.operators.curvature._build import build, with_damping
from curvscope.operators.fingerprint import fingerprint
from curvscope.operators.objective import (
    Objective,
    ObjectiveOptions,
    check_substitution,
)
from curvscope.system import checked


class GradientSecondMoment(Composable):
    """Second moment of the mini-batches' gradients; build it with :func:`gradient_second_moment`."""

    semidefinite = True
    depends_on_order = True
    objective: Objective

    def __init__(self, objective: Objective, *, centered: bool = False) -> None:
        self.objective, self.centered = objective, centered
        self.shape = (objective.parameters.size, objective.parameters.size)
        self.dtype, self.device = objective.dtype, objective.device

    @property
    def parameters(self) -> Parameters:
        """Names, shapes and places of the D parameters."""
        return self.objective.parameters

    def rank_bound(self) -> RankBound:
        """At most the number of mini-batches, each of which gives one gradient."""
        batches = sum(1 for _ in self.objective.batches())
        return RankBound(batches, f"{batches} mini-batches")

    def _apply(self, block: Tensor) -> Tensor:
        check_substitution(self.objective)
        total, mean = torch.zeros_like(block), block.new_zeros(block.shape[0])
        with self.objective.isolated():
            for number, (batch, weight) in enumerate(self.objective.batches()):
                self.objective.seed(number)
                gradient = self.objective.batch_gradient(batch)
                total.addr_(gradient, gradient @ block, alpha=weight)
                mean.add_(gradient, alpha=weight)
        return total.addr_(mean, mean @ block, alpha=-1.0) if self.centered else total

    def _fingerprint(self) -> str:
        return fingerprint("gradient second moment", self.centered, self.objective.fingerprint())

    def _identity(self) -> dict[str, Any]:
        def multiply(vector: Tensor, at: Objective) -> Tensor:
            """The product with the matrix of an objective."""
            return GradientSecondMoment(at) @ vector

        made = of_objective(self, multiply)
        return {**made, "exact": made["exact"] | {"centered": str(self.centered)}}


@overload
def gradient_second_moment(
    model: nn.Module | Callable[..., Any],
    loss: Any,
    data: Iterable[Any] | None = None,
    *,
    centered: bool = False,
    damping: float,
    **options: Unpack[ObjectiveOptions],
) -> Sum: ...


@overload
def gradient_second_moment(
    model: nn.Module | Callable[..., Any],
    loss: Any,
    data: Iterable[Any] | None = None,
    *,
    centered: bool = False,
    **options: Unpack[ObjectiveOptions],
) -> GradientSecondMoment: ...


@checked
def gradient_second_moment(
    model: nn.Module | Callable[..., Any],
    loss: Any,
    data: Iterable[Any] | None = None,
    *,
    centered: bool = False,
    damping: float | None = None,
    **options: Unpack[ObjectiveOptions],
) -> GradientSecondMoment | Sum:
    r"""The second moment of the mini-batches' gradients: the noise of stochastic gradient descent, for any loss.

    .. math:: M = \sum_b w_b\, g_b g_b^\top \; [\, - g g^\top], \qquad g_b = \nabla_\theta\, \ell(f_\theta, \mathrm{batch}_b)

    Depends on the batching, as its subject does; its rank is at most the number of batches.

    Args:
        model: see :func:`.curvature.hessian`, as for all other arguments.
        loss: any.
        data: batches.
        centered: subtract the mean gradient's outer product, for the covariance.
        damping: of M + damping I, which is then returned; None: M.
        options: see :class:`.ObjectiveOptions`.

    Cost: one gradient a batch for a whole block, and two passes over the block.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> gradient_second_moment(model, nn.MSELoss(), [(torch.eye(2), torch.zeros(2, 1))]).shape
    (2, 2)
    """
    objective, _ = build(model, loss, data, options, ObjectiveOptions)
    return with_damping(GradientSecondMoment(objective, centered=centered), damping)
