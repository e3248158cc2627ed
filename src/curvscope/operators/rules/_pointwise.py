"""Activations without second derivatives in PyTorch, from operations that have them."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """``functional.hardsigmoid``, of MobileNetV3."""
    return functional.relu6(input + 3.0) / 6.0
