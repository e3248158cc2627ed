"""Hessian and generalised Gauss-Newton matrix of an objective, as operators."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument
from curvscope.operators.algebra import Composable
from curvscope.operators.fingerprint import fingerprint
from curvscope.operators.objective import Loss, Objective
from curvscope.operators.parameters import ParameterFilter, Parameters
from curvscope.operators.products import BatchMap, Engine, HessianMap, SandwichMap, loss_hessian


class ProductOptions(TypedDict, total=False):
    """How products are computed; the matrix is the same whatever is chosen.

    strategy: "auto" (tried for a moment and remembered), or "split", "split_vmap", "linearize", "linearize_vmap",
    "double_backward". width: vectors at a time; None: chosen. memory: bytes that products may use; None: half of what is
    free. accumulate: dtype of the columns and of the sum over mini-batches; default: the objective's, float32 for
    half-precision ones.
    """

    strategy: str
    width: int | None
    memory: int | None
    accumulate: torch.dtype | None


class CurvatureOperator(Composable):
    """A symmetric D x D matrix that is a weighted sum over mini-batches.

    Outer loop mini-batches, inner loop groups of vectors: each batch is linearised once for the whole block.

    Args:
        objective: the loss and its data.
        batch_map: the matrix of one mini-batch.
        options: see :class:`ProductOptions`.

    Attributes:
        strategy_report: after a product: the strategy in use, its width, what was tried and skipped, what is kept.
    """

    hermitian = True

    def __init__(self, objective: Objective, batch_map: BatchMap, **options: Unpack[ProductOptions]) -> None:
        self.objective = objective
        self.shape = (objective.parameters.size, objective.parameters.size)
        narrow = torch.float32 if torch.finfo(objective.dtype).bits < 32 else objective.dtype
        self.dtype, self.device = options.get("accumulate") or narrow, objective.device
        if not self.dtype.is_floating_point:
            raise InvalidArgument(f"accumulate={self.dtype}: choose torch.float32 or torch.float64")
        self._engine = Engine(
            batch_map,
            strategy=options.get("strategy", "auto"),
            width=options.get("width"),
            memory=options.get("memory"),
            accumulate=self.dtype,
        )

    @property
    def parameters(self) -> Parameters:
        """Names, shapes and places of the D parameters; ``flatten`` and ``unflatten``."""
        return self.objective.parameters

    def values(self) -> Tensor:
        """The (D,) parameters at which the curvature is measured."""
        return self.parameters.join(self.objective.values)

    @property
    def strategy_report(self) -> dict[str, Any]:
        """How products are computed, for provenance; empty before the first one."""
        return self._engine.report

    @property
    def memory(self) -> int | None:
        """Bytes that products may use; None: half of what is free. May be set."""
        return self._engine.memory

    @memory.setter
    def memory(self, bound: int | None) -> None:
        self._engine.memory = bound

    def replay(self, report: dict[str, Any] | None) -> None:
        """Compute products as a :attr:`strategy_report` says, for the same bits as there; None: as was asked for."""
        self._engine.replay(report)

    def _apply(self, block: Tensor) -> Tensor:
        return self._engine.apply(block)

    def _fingerprint(self) -> str:
        return fingerprint(type(self).__name__, self.objective.fingerprint())


class Hessian(CurvatureOperator):
    """The Hessian of an objective; build it with :func:`hessian`."""

    def __init__(self, objective: Objective, **options: Unpack[ProductOptions]) -> None:
        super().__init__(objective, HessianMap(objective), **options)


class GeneralizedGaussNewton(CurvatureOperator):
    """The generalised Gauss-Newton matrix of an objective; build it with :func:`ggn`."""

    def __init__(self, objective: Objective, **options: Unpack[ProductOptions]) -> None:
        require_criterion(objective, "the GGN")
        curve = loss_hessian(objective.criterion)
        batch_map = SandwichMap(objective, lambda output, batch, tangent: curve(output, batch[1], tangent))
        super().__init__(objective, batch_map, **options)


def require_criterion(objective: Objective, matrix: str) -> None:
    """Raise InvalidArgument unless the objective knows where the network ends and the loss begins."""
    if not objective.has_criterion:
        raise InvalidArgument(
            f"{matrix} needs to know where the network ends and the loss begins: pass a criterion (output, target) and "
            "data that yields (x, y), not a function loss(model, batch)"
        )


def hessian(
    model: nn.Module,
    loss: Loss,
    data: Iterable[Any],
    *,
    params: ParameterFilter = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    weight: Callable[[Any], float] | None = None,
    microbatch: int | None = None,
    reduction: str | None = None,
    batchnorm: str = "eval",
    dropout: int | None = None,
    **options: Unpack[ProductOptions],
) -> Hessian:
    r"""The Hessian of the mean loss with respect to the parameters, as an operator.

    .. math:: H = \sum_b w_b \, \nabla^2_\theta\, \ell(f_\theta, \mathrm{batch}_b)

    Exact products, symmetric, D x D; the same matrix for every batching of the same data. Arguments and errors are those of
    :class:`.objective.Objective`; ``strategy``, ``width``, ``memory`` and ``accumulate`` those of :class:`ProductOptions`.

    Cost: a product costs 0.5 to 2 gradients of the loss with the traced strategies, 2 to 3 with the fallback; the first one
    also traces (about 3 gradients and some milliseconds per hundred operations). Memory: the residuals of one mini-batch
    (about its activations) and a bounded group of vectors; residuals of more batches are kept while they fit.
    Limits: piecewise linear networks have the Hessian of their current linear piece. Source: Pearlmutter (1994).

    >>> model = nn.Linear(3, 1, bias=False)
    >>> x = torch.eye(3)
    >>> H = hessian(model, nn.MSELoss(), [(x, torch.zeros(3, 1))])
    >>> H @ torch.ones(3)                   # 2/3 times the identity
    tensor([0.6667, 0.6667, 0.6667])
    """
    objective = Objective(
        model,
        loss,
        data,
        params=params,
        dtype=dtype,
        device=device,
        weight=weight,
        microbatch=microbatch,
        reduction=reduction,
        batchnorm=batchnorm,
        dropout=dropout,
    )
    return Hessian(objective, **options)


def ggn(
    model: nn.Module,
    loss: Loss,
    data: Iterable[Any],
    *,
    params: ParameterFilter = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    weight: Callable[[Any], float] | None = None,
    microbatch: int | None = None,
    reduction: str | None = None,
    batchnorm: str = "eval",
    dropout: int | None = None,
    **options: Unpack[ProductOptions],
) -> GeneralizedGaussNewton:
    r"""The generalised Gauss-Newton matrix of the mean loss, as an operator.

    .. math:: G = \sum_b w_b\, J_b^\top \big(\nabla^2_f\, \ell\big)\, J_b, \qquad J_b = \partial f_\theta / \partial \theta

    Positive semi-definite for a convex loss; equal to the Fisher matrix for softmax cross-entropy and for squared error.
    Needs a criterion and pairs (x, y); otherwise as :func:`hessian`. The loss Hessian is used in closed form for
    cross-entropy, squared error and binary cross-entropy with logits.

    Cost: a product costs about two thirds of a Hessian product. Source: Schraudolph (2002); Martens (2020).

    >>> model = nn.Linear(2, 2, bias=False)
    >>> G = ggn(model, nn.CrossEntropyLoss(), [(torch.eye(2), torch.tensor([0, 1]))])
    >>> G.shape, G.hermitian
    ((4, 4), True)
    """
    objective = Objective(
        model,
        loss,
        data,
        params=params,
        dtype=dtype,
        device=device,
        weight=weight,
        microbatch=microbatch,
        reduction=reduction,
        batchnorm=batchnorm,
        dropout=dropout,
    )
    return GeneralizedGaussNewton(objective, **options)
