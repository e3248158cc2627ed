"""Hessian and generalised Gauss-Newton matrix of an objective, as operators."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument
from curvscope.operators.base import Operator
from curvscope.operators.fingerprint import fingerprint
from curvscope.operators.objective import Batch, Objective
from curvscope.operators.parameters import ParameterFilter, Parameters
from curvscope.operators.products import GaussNewton, RetainedGradient

CHUNK_BYTES = 1 << 28
"""Bytes that the tangents of one chunk, with their images in the network, may take."""


class CurvatureOperator(Operator):
    """A symmetric D x D matrix that is a weighted sum over mini-batches.

    Outer loop mini-batches, inner loop chunks of vectors: each batch is linearised once for the whole block.
    """

    hermitian = True

    def __init__(self, objective: Objective, *, chunk: int | None = None) -> None:
        if chunk is not None and chunk < 1:
            raise InvalidArgument(f"chunk={chunk}: choose at least 1 vector at a time, or None")
        self.objective = objective
        self.shape = (objective.parameters.size, objective.parameters.size)
        self.dtype, self.device = objective.dtype, objective.device
        width = CHUNK_BYTES // (8 * objective.parameters.size * torch.finfo(objective.dtype).bits // 8)
        self.chunk = chunk or max(1, min(32, width))

    @property
    def parameters(self) -> Parameters:
        """Names, shapes and places of the D parameters; ``flatten`` and ``unflatten``."""
        return self.objective.parameters

    def values(self) -> Tensor:
        """The (D,) parameters at which the curvature is measured."""
        return self.parameters.join(self.objective.values)

    @abstractmethod
    def _linearize(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        """The curvature of one batch as a map of (c, D) tangents to (c, D) products."""

    def _apply(self, block: Tensor) -> Tensor:
        tangents = block.T.contiguous()
        total = torch.zeros_like(tangents)
        with self.objective.untouched():
            for batch, weight in self.objective.batches():
                linear = self._linearize(batch)
                for start in range(0, tangents.shape[0], self.chunk):
                    rows = slice(start, start + self.chunk)
                    total[rows].add_(linear(tangents[rows]).detach(), alpha=weight)
        return total.T

    def _fingerprint(self) -> str:
        return fingerprint(type(self).__name__, self.objective.fingerprint())


class Hessian(CurvatureOperator):
    """The Hessian of an objective; build it with :func:`hessian`."""

    def _linearize(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        return RetainedGradient(self.objective, batch)


class GeneralizedGaussNewton(CurvatureOperator):
    """The generalised Gauss-Newton matrix of an objective; build it with :func:`ggn`."""

    def __init__(self, objective: Objective, *, chunk: int | None = None) -> None:
        if not objective.has_criterion:
            raise InvalidArgument(
                "the GGN needs to know where the network ends and the loss begins: pass a criterion (output, target) and "
                "data that yields (x, y), not a function loss(model, batch)"
            )
        super().__init__(objective, chunk=chunk)

    def _linearize(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        return GaussNewton(self.objective, batch)


def hessian(
    model: nn.Module,
    loss: Callable[..., Tensor],
    data: Iterable[Any],
    *,
    params: ParameterFilter = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    weight: Callable[[Any], float] | None = None,
) -> Hessian:
    r"""The Hessian of the mean loss with respect to the parameters, as an operator.

    .. math:: H = \sum_b w_b \, \nabla^2_\theta\, \ell(f_\theta, \mathrm{batch}_b)

    Exact products, symmetric, D x D; the same matrix for every batching of the same data. Arguments and errors are those of
    :class:`.objective.Objective`.

    Cost: a product costs 1 to 3 gradients of the loss, less a vector in wide blocks. Memory: the graph of one mini-batch and
    a bounded chunk of vectors.
    Limits: piecewise linear networks have the Hessian of their current linear piece. Source: Pearlmutter (1994).

    >>> model = nn.Linear(3, 1, bias=False)
    >>> x = torch.eye(3)
    >>> H = hessian(model, nn.MSELoss(), [(x, torch.zeros(3, 1))])
    >>> H @ torch.ones(3)                   # 2/3 times the identity
    tensor([0.6667, 0.6667, 0.6667])
    """
    return Hessian(Objective(model, loss, data, params=params, dtype=dtype, device=device, weight=weight))


def ggn(
    model: nn.Module,
    loss: Callable[..., Tensor],
    data: Iterable[Any],
    *,
    params: ParameterFilter = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    weight: Callable[[Any], float] | None = None,
) -> GeneralizedGaussNewton:
    r"""The generalised Gauss-Newton matrix of the mean loss, as an operator.

    .. math:: G = \sum_b w_b\, J_b^\top \big(\nabla^2_f\, \ell\big)\, J_b, \qquad J_b = \partial f_\theta / \partial \theta

    Positive semi-definite for a convex loss; equal to the Fisher matrix for softmax cross-entropy and for squared error.
    Needs a criterion and pairs (x, y); otherwise as :func:`hessian`.

    Cost: a product costs about two thirds of a Hessian product. Source: Schraudolph (2002); Martens (2020).

    >>> model = nn.Linear(2, 2, bias=False)
    >>> G = ggn(model, nn.CrossEntropyLoss(), [(torch.eye(2), torch.tensor([0, 1]))])
    >>> G.shape, G.hermitian
    ((4, 4), True)
    """
    return GeneralizedGaussNewton(Objective(model, loss, data, params=params, dtype=dtype, device=device, weight=weight))
