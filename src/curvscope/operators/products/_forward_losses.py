"""Losses that PyTorch cannot differentiate forward over reverse, from operations that it can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from curvscope.operators.rules import reduced


class ForwardModeLosses(TorchFunctionMode):
    """Inside, ``mse_loss`` and ``huber_loss`` are computed from elementary operations; the values are the same.

    Their fused backward kernels have no forward derivative in PyTorch (2.9 to 2.15 at least).
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        replacement = {functional.mse_loss: _squared, functional.huber_loss: _huber}.get(func)
        usual = len(args) <= 2 and all(kwargs.get(name) is None for name in ("size_average", "reduce", "weight"))
        if replacement is None or not usual:
            return func(*args, **kwargs)
        return reduced(replacement(*args, **kwargs), kwargs.get("reduction", "mean"))


def _squared(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    return (input - target).square()


def _huber(input: Tensor, target: Tensor, delta: float = 1.0, **options: Any) -> Tensor:
    difference = (input - target).abs()
    return torch.where(difference <= delta, 0.5 * difference.square(), delta * (difference - 0.5 * delta))
