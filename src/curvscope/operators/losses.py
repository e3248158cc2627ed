"""Losses as people pass them: what kind they are, and what they are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from math import isfinite
from typing import Any

from torch import Tensor, nn

from curvscope.errors import InvalidArgument, NotDifferentiable, NotFinite
from curvscope.operators.batches import ELEMENTWISE, Batch, length, split, tensors_of

COUNTED = (nn.CrossEntropyLoss, nn.NLLLoss, *ELEMENTWISE)
"""Criteria whose terms are known."""


class CallWithModel(nn.Module):
    """``function(model, argument)`` as a module, so that functional_call can reach the model's parameters."""

    def __init__(self, model: nn.Module, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, argument: Any) -> Tensor:
        """Call the function with the model."""
        return self.function(self.model, argument)


def models_own_loss(model: nn.Module, batch: Batch) -> Tensor:
    """What a Hugging Face model says its loss on a batch with labels is.

    Raises:
        InvalidArgument: another batch.
    """
    if not isinstance(batch, dict):
        raise InvalidArgument(f"loss='model' needs batches that are mappings with 'labels', got a {type(batch).__name__}")
    output = model(**batch)
    loss = getattr(output, "loss", None)
    if loss is None:
        raise InvalidArgument(
            f"loss='model' needs batches that are mappings with 'labels', or whatever {type(model).__name__} computes its loss "
            f"from, and a model that returns it as .loss; got {type(output).__name__} for a batch with keys {list(batch)}"
        )
    return loss


def checked_value(loss: Any, what: str) -> float:
    """The number that a loss is; ``what`` names it.

    Raises:
        InvalidArgument: not a scalar. NotDifferentiable: an integer. NotFinite: NaN or infinite.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise InvalidArgument(f"{what} is {got}, expected a scalar: use reduction='mean'")
    if not loss.is_floating_point():
        raise NotDifferentiable(f"{what} is {loss.dtype}: it must be a floating-point scalar")
    value = float(loss)
    if not isfinite(value):
        raise NotFinite(f"{what} is {value}: look at that batch's inputs and at the parameters")
    return value


def takes_model(loss: Callable[..., Tensor]) -> bool:
    """Whether a loss is a function of a model and a batch, told by the name of its first parameter, rather than a criterion."""
    if isinstance(loss, nn.Module):
        return False
    try:
        names = list(inspect.signature(loss).parameters)
    except (TypeError, ValueError):
        return False
    return bool(names) and names[0] in ("model", "net", "network", "module")


def name_of(loss: Callable[..., Tensor]) -> str:
    """What a loss is called, with its options."""
    if isinstance(loss, nn.Module):
        return f"{type(loss).__qualname__} {loss.extra_repr()} {getattr(loss, 'reduction', '')}"
    return getattr(loss, "__qualname__", type(loss).__qualname__)


def is_mean_of_pieces(
    loss: Callable[[Batch], Tensor], terms: Callable[[Batch], float], batch: Batch, most: int | None, limit: float
) -> bool | None:
    """Whether the loss of a batch is the mean of its halves' losses, weighted by their terms; None: this batch does not tell.

    Args:
        loss: of a batch.
        terms: what it is weighted by.
        batch: at least two samples.
        most: samples at a time, where batches are cut anyway; else one is cut here only if all of its tensors can be.
        limit: relative difference that rounding explains.

    Cost: two evaluations of the loss of the batch.
    """
    if most is None and len({len(tensor) for tensor in tensors_of(batch) if tensor.ndim}) > 1:
        return None  # a graph, say: a part of its nodes is no batch
    whole = next(split(batch, max(2, most or length(batch))))
    halves = [half for half in split(whole, -(-length(whole) // 2)) if terms(half)]
    try:
        expected = float(loss(whole)) * terms(whole)
        found = [float(loss(half)) * terms(half) for half in halves]
    except (RuntimeError, TypeError, ValueError, LookupError):
        return None
    return abs(sum(found) - expected) <= limit * max(abs(expected), *map(abs, found), 1e-300)
