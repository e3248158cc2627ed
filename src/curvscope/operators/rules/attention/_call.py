"""``scaled_dot_product_attention`` as it is called, on tiles."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from curvscope.operators.rules.attention._functions import Attend

MIN_TILED_SCORES = 1 << 18
"""Weights of a head beyond which tiles pay (512 x 512); PyTorch's own kernel keeps them between products and is faster below.
Measured by ``benchmarks/attention.py``."""

MIN_TILED_SCORES_OF_BATCH = 1 << 24
"""Weights of all heads of a mini-batch from which memory decides: PyTorch's own kernel stores about ten such arrays a layer."""

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """``functional.scaled_dot_product_attention`` with first and second derivatives in linear memory.

    NotImplemented for short sequences, where PyTorch's own is as fast, for dropout, for a mask that is differentiated, and for
    whatever PyTorch itself refuses.
    """
    if query.ndim < 2 or key.ndim < 2 or not is_worth_tiles(query.shape[-2], key.shape[-2], math.prod(query.shape[:-2])):
        return NotImplemented
    if dropout_p or not _is_usual(query, key, value) or (attn_mask is not None and (is_causal or not _is_constant(attn_mask))):
        return NotImplemented
    return tiled_attention(query, key, value, mask=attn_mask, causal=is_causal, scale=scale, grouped=enable_gqa)


def is_worth_tiles(num_queries: int, num_keys: int, num_heads: int) -> bool:
    """Return whether sequences are long enough, or so many that their weights need much memory; heads are those of a batch."""
    weights = num_queries * num_keys
    return weights > MIN_TILED_SCORES or weights * num_heads >= MIN_TILED_SCORES_OF_BATCH


def tiled_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    grouped: bool = False,
) -> Any:
    """softmax(scale Q K^T + mask) V by tiles, whatever the length; NotImplemented where shapes do not fit together.

    Args:
        query: (..., H, N, E); leading axes broadcast.
        key: (..., K, M, E).
        value: (..., K, M, V).
        mask: broadcastable to (..., H, N, M); True for what takes part, or numbers that are added.
        causal: whether the query at place i sees the keys up to place i alone.
        scale: None: 1 / sqrt(E).
        grouped: whether H / K heads of queries share one of keys.

    Cost: 2 products of N x M by the width for the output, 7 for its gradient, 17 more a direction for its second derivatives;
    causal masks save half, other masks what they hide of whole tiles. Memory: linear in N and M.

    >>> q = torch.randn(2, 3, 8, 4, dtype=torch.float64)
    >>> exact = torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
    >>> torch.allclose(tiled_attention(q, q, q, causal=True), exact)
    True
    """
    arranged = _arranged(query, key, value, grouped)
    if arranged is None:
        return NotImplemented
    batch, (q, k, v) = arranged
    if mask is not None:
        mask = _mask(mask, batch, q, k.shape[-2])
        if mask is None:
            return NotImplemented
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    out = Attend.apply(q, k, v, mask, causal, factor)[0]
    return out.reshape(*batch, *out.shape[-2:])


def _is_usual(*tensors: Tensor) -> bool:
    first = tensors[0]
    alike = all(t.dtype is first.dtype and t.device == first.device and t.layout is torch.strided for t in tensors)
    if torch.is_autocast_enabled(first.device.type):
        return False  # PyTorch's own narrows its arguments
    return alike and first.dtype in DTYPES and not any(t.is_nested or t.numel() == 0 for t in tensors)


def _is_constant(mask: Tensor) -> bool:
    """Return whether nobody differentiates by the mask, on any level of ``torch.func``."""
    while mask.is_floating_point():
        if mask.requires_grad or forward_ad.unpack_dual(mask, level=0).tangent is not None:
            return False
        if not torch._C._functorch.is_functorch_wrapped_tensor(mask):
            break
        mask = torch._C._functorch.get_unwrapped(mask)
    return True


def _arranged(
    query: Tensor, key: Tensor, value: Tensor, grouped: bool
) -> tuple[list[int], tuple[Tensor, Tensor, Tensor]] | None:
    """The leading axes of the result; queries as (B, K, G, N, E), keys and values as (B, K, M, E). None: these do not fit."""
    group = 1
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        return None
    if grouped:
        if min(query.ndim, key.ndim, value.ndim) < 3 or key.shape[-3] != value.shape[-3] or query.shape[-3] % key.shape[-3]:
            return None
        group = query.shape[-3] // key.shape[-3]
    apart = query.unflatten(-3, (-1, group)).movedim(-3, 0) if grouped else query[None]
    try:
        leading = torch.broadcast_shapes(apart.shape[1:-2], key.shape[:-2], value.shape[:-2])
    except RuntimeError:
        return None
    heads = leading[-1] if leading else 1
    q = apart.expand(group, *leading, *query.shape[-2:]).movedim(0, -3).reshape(-1, heads, group, *query.shape[-2:])
    k, v = (t.expand(*leading, *t.shape[-2:]).reshape(-1, heads, *t.shape[-2:]) for t in (key, value))
    return [*leading[:-1], heads * group] if leading else [], (q, k, v)


def _mask(mask: Tensor, leading: list[int], query: Tensor, num_keys: int) -> Tensor | None:
    """The mask as (B, K, G, N, M), of length 1 along each axis on which it is the same; None where it does not fit."""
    heads, group, rows = query.shape[1:4]
    whole = [*(leading or [1]), rows, num_keys]
    if mask.ndim > len(leading) + 2 or mask.dtype not in (torch.bool, query.dtype):
        return None
    mask = mask[(None,) * (len(whole) - mask.ndim)]
    if any(n not in (1, full) for n, full in zip(mask.shape, whole, strict=True)):
        return None
    batch = whole[:-3]
    if all(n == 1 for n in mask.shape[:-3]):
        mask = mask.reshape(1, *mask.shape[-3:])
    else:
        mask = mask.expand(*batch, *mask.shape[-3:]).flatten(0, len(batch) - 1)
    return mask[:, None] if mask.shape[1] == 1 else mask.unflatten(1, (heads, group))
