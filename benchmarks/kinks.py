"""On which side of its kink each unit is: recorded in float32, repeated in float64, so that errors compare like with like.

The Hessian of a piecewise linear network jumps where a ReLU or the winner of a max-pooling window changes. Rounding decides for
the few units that are within 1e-7 of their kink, so float32 and float64 products may be those of two neighbouring pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class Kinks(TorchFunctionMode):
    """Record the pattern of every ReLU and max-pooling call, or repeat a recorded one in the same order.

    Args:
        recorded: patterns to repeat, over and over; None: record.

    Attributes:
        patterns: one boolean mask or tensor of winners' indices a call.
        units: how many units the repeated calls had; changed: for how many of them the own pattern would have been another.
    """

    def __init__(self, recorded: list[Tensor] | None = None) -> None:
        super().__init__()
        self.patterns: list[Tensor] = [] if recorded is None else recorded
        self.repeating, self.calls, self.units, self.changed = recorded is not None, 0, 0, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (functional.relu, torch.relu, torch.relu_):
            pattern = self._pattern(args[0].detach() > 0)
            return args[0] * pattern.to(args[0].dtype)
        if func in (functional.max_pool2d, torch.max_pool2d):
            options = {**kwargs, "return_indices": False}
            _, indices = functional.max_pool2d_with_indices(args[0].detach(), *args[1:], **options)
            pattern = self._pattern(indices)
            return args[0].flatten(2).gather(2, pattern.flatten(2)).view(pattern.shape)
        return func(*args, **kwargs)

    def _pattern(self, own: Tensor) -> Tensor:
        if not self.repeating:
            self.patterns.append(own)
            return own
        pattern = self.patterns[self.calls % len(self.patterns)]
        if self.calls < len(self.patterns):
            self.units, self.changed = self.units + own.numel(), self.changed + int((own != pattern).sum())
        self.calls += 1
        return pattern


def kinks_of(model: nn.Module, batches: list[Any]) -> list[Tensor]:
    """The patterns of one evaluation of every batch."""
    with Kinks() as kinks, torch.no_grad():
        for x, _ in batches:
            model(x)
    return kinks.patterns
