"""Losses as people pass them: what kind they are, and what they are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from torch import Tensor, nn

from curvscope.errors import InvalidArgument
from curvscope.operators.batches import Batch


def models_own_loss(model: nn.Module, batch: Batch) -> Tensor:
    """What a Hugging Face model says its loss on a batch with labels is.

    Raises:
        InvalidArgument: another batch.
    """
    if not isinstance(batch, dict) or "labels" not in batch:
        got = f"one with keys {list(batch)}" if isinstance(batch, dict) else f"a {type(batch).__name__}"
        raise InvalidArgument(f"loss='model' needs batches that are mappings with 'labels', got {got}")
    return model(**batch).loss


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
