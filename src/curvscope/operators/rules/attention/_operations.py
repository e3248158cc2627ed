"""The four calculations as operations of PyTorch's own kind, so that a recorded program has one call for each.

Heads are (B, K, ...) and those of queries (B, K, G, ...); directions and gradients have a leading axis T. Half precision is
multiplied in float32. The operations know no derivatives: see :mod:`._functions`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from curvscope.operators.rules.attention._backward import Gradient, pull_back, pull_back_along
from curvscope.operators.rules.attention._forward import attend, attend_along
from curvscope.operators.rules.attention._tiles import Weights

LIBRARY = torch.library.Library("curvscope", "DEF")

SCHEMAS = {
    "attention": "(Tensor q, Tensor k, Tensor v, Tensor? mask, bool causal, float scale) -> (Tensor, Tensor)",
    "attention_along": "(Tensor q, Tensor k, Tensor v, Tensor? mask, bool causal, float scale, Tensor out, Tensor statistics, "
    "Tensor q_t, Tensor k_t, Tensor v_t) -> (Tensor, Tensor)",
    "attention_backward": "(Tensor q, Tensor k, Tensor v, Tensor? mask, bool causal, float scale, Tensor out, "
    "Tensor statistics, Tensor slope) -> (Tensor, Tensor, Tensor)",
    "attention_backward_along": "(Tensor q, Tensor k, Tensor v, Tensor? mask, bool causal, float scale, Tensor out, "
    "Tensor statistics, Tensor slope, Tensor q_t, Tensor k_t, Tensor v_t, Tensor slope_t, Tensor out_t, Tensor rho) "
    "-> (Tensor, Tensor, Tensor)",
}

HALF = (torch.float16, torch.bfloat16)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    with torch._C.DisableTorchFunction():
        weights, value = _prepared(q, k, v, mask, causal, scale)
        out, statistics = attend(weights, value)
        return out.to(q.dtype).view(*q.shape[:-1], -1), statistics.view(*q.shape[:-1], 2)


def _attention_along(*args: Any) -> tuple[Tensor, Tensor]:
    q, k, v, mask, causal, scale, out, statistics, *along = args
    with torch._C.DisableTorchFunction():
        weights, value = _prepared(q, k, v, mask, causal, scale)
        out_t, rho = attend_along(weights, value, _rows(out), _rows(statistics), _directions(along))
        return out_t.to(q.dtype).view(-1, *out.shape), rho.view(-1, *out.shape[:-1], 1)


def _attention_backward(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, mask, causal, scale, out, statistics, slope = args
    with torch._C.DisableTorchFunction():
        weights, value = _prepared(q, k, v, mask, causal, scale)
        given = Gradient(value, _rows(out), _rows(statistics), _directions([slope])[0])
        return _shaped(pull_back(weights, given), (q, k, v))


def _attention_backward_along(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, mask, causal, scale, out, statistics, slope, *along, out_t, rho = args
    with torch._C.DisableTorchFunction():
        weights, value = _prepared(q, k, v, mask, causal, scale)
        slopes, directions, moved = _directions([slope])[0], _directions(along), _directions([out_t, rho])
        parts = []
        for index in range(len(slopes)):  # gradients that differ from direction to direction share nothing
            own = slice(None) if len(slopes) == 1 else slice(index, index + 1)
            given = Gradient(value, _rows(out), _rows(statistics), slopes[own][:1])
            parts.append(pull_back_along(weights, given, tuple(d[own] for d in directions), (moved[0][own], moved[1][own])))
        return _shaped(tuple(p[0] if len(p) == 1 else torch.cat(p) for p in zip(*parts, strict=True)), (q, k, v))


def _prepared(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float) -> tuple[Weights, Tensor]:
    q, k, v = (_wide(tensor) for tensor in (q, k, v))
    return Weights(q, k, mask, causal, scale), v.flatten(0, 1).contiguous()


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in HALF else tensor


def _rows(tensor: Tensor) -> Tensor:
    return _wide(tensor).flatten(0, 1)


def _directions(tensors: list[Tensor]) -> Any:
    return tuple(_wide(tensor).flatten(1, 2) for tensor in tensors)


def _shaped(found: tuple[Tensor, ...], like: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (tensor.to(other.dtype).view(-1, *other.shape) for tensor, other in zip(found, like, strict=True))
    return q, k, v


def _shapes_of_attention(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(*q.shape[:-1], v.shape[-1]), _wide(q.new_empty(*q.shape[:-1], 2))


def _shapes_along(*args: Any) -> tuple[Tensor, Tensor]:
    count, out = len(args[8]), args[6]
    return out.new_empty(count, *out.shape), _wide(out.new_empty(count, *out.shape[:-1], 1))


def _shapes_of_gradients(*args: Any) -> tuple[Tensor, ...]:
    count = len(args[-1])  # of slopes, or of rho: as many as there are directions
    return tuple(tensor.new_empty(count, *tensor.shape) for tensor in args[:3])


KERNELS = {
    "attention": (_attention, _shapes_of_attention),
    "attention_along": (_attention_along, _shapes_along),
    "attention_backward": (_attention_backward, _shapes_of_gradients),
    "attention_backward_along": (_attention_backward_along, _shapes_of_gradients),
}

for name, schema in SCHEMAS.items():
    LIBRARY.define(name + schema)
    for key, kernel in zip(("CompositeExplicitAutograd", "Meta"), KERNELS[name], strict=True):
        LIBRARY.impl(name, kernel, key)
