"""Normalisations from elementary operations: PyTorch's fused ones are wrong in some second or third derivatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """``torch._weight_norm``, whose backward leaves terms out of the second derivative, and says nothing."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    """``functional.layer_norm``, whose third derivatives are wrong (pytorch/pytorch#175754)."""
    axes = tuple(range(-len(normalized_shape), 0))
    result = _standardized(input, axes, eps)
    result = result if weight is None else result * weight
    return result if bias is None else result + bias


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """``functional.group_norm``, for third derivatives."""
    samples, channels = input.shape[:2]
    grouped = input.reshape(samples, num_groups, -1)
    result = _standardized(grouped, (-1,), eps).view(input.shape)
    shape = (1, channels, *(1,) * (input.ndim - 2))
    result = result if weight is None else result * weight.view(shape)
    return result if bias is None else result + bias.view(shape)


def _standardized(input: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    """Without mean and variance along some axes."""
    centred = input - input.mean(axes, keepdim=True)
    return centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()
