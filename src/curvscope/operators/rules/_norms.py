"""Normalisations from elementary operations: PyTorch's fused ones are wrong in some second or third derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    grouped = input.reshape(input.shape[0], num_groups, -1)
    result = _standardized(grouped, (-1,), eps).view(input.shape)
    return _scaled(result, weight, bias)


def _standardized(input: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    """Without mean and variance along some axes."""
    centred = input - input.mean(axes, keepdim=True)
    return centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """``functional.instance_norm``, for third derivatives; NotImplemented with running statistics, which are constants."""
    if not use_input_stats:
        return NotImplemented
    result = _standardized(input, tuple(range(2, input.ndim)), eps)
    return _scaled(result, weight, bias)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """``functional.batch_norm`` with the batch's own statistics, for third derivatives; else NotImplemented."""
    if not training or running_mean is not None:
        return NotImplemented
    result = _standardized(input, (0, *range(2, input.ndim)), eps)
    return _scaled(result, weight, bias)


def _scaled(standard: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Times weight plus bias, which have an entry for each channel (axis 1)."""
    shape = (1, -1, *(1,) * (standard.ndim - 2))
    standard = standard if weight is None else standard * weight.view(shape)
    return standard if bias is None else standard + bias.view(shape)
