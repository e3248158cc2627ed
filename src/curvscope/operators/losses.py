"""Losses as people pass them: what kind they are, and what they are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from curvscope.errors import InvalidArgument
from curvscope.operators.batches import Batch


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
