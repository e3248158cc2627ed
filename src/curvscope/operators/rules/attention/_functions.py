r"""The derivatives of attention for autograd, ``torch.func`` and ``vmap``, up to the second.

Four functions, each an operation of :mod:`._operations` with its rules. The Hessian of :math:`\langle G, O(Q, K, V)\rangle` is
symmetric. So the operation that differentiates the gradient along a direction also pulls back through it, and reverse over
reverse needs no fifth one. The two modes use it on other arguments: comparing them, as is done before the first product,
shows a fault of it.

The outputs ``out`` and ``statistics`` of a forward pass are handed to the later functions for speed. Their derivatives along a
direction are used where they are known; in reverse mode what depends on them is counted as dependence on Q, K, V.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import Function

from curvscope.errors import NotDifferentiable
from curvscope.operators.rules.attention._batched import directions_batched, heads_batched
from curvscope.operators.rules.attention._operations import LIBRARY  # noqa: F401 -- defines the operations

operations = torch.ops.curvscope
NO_GRADIENT = (None, None, None)
"""Of mask, causal and scale."""


def _refuse(ctx: Any, *tangents: Any) -> NoReturn:
    """Third derivatives, in either mode."""
    raise NotDifferentiable(
        "scaled_dot_product_attention is differentiated three times here: tiled attention has two derivatives",
        "Write it as softmax(q @ k.mT * scale) @ v, which has all of them",
    )


class _Rule(Function):
    """What the four have in common: all tensors are kept for either mode, numbers beside them."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep inputs and outputs."""
        q, k, v, mask, causal, scale, *others = inputs
        tensors = [q, k, v, *others, *output]
        ctx.numbers, ctx.masked = (causal, scale), mask is not None
        kept = tensors if mask is None else [*tensors, mask]
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)


def _given(ctx: Any) -> tuple[tuple[Any, ...], list[Tensor]]:
    """The six arguments that all functions begin with, and the tensors that follow them."""
    tensors = list(ctx.saved_tensors)
    mask = tensors.pop() if ctx.masked else None
    return (*tensors[:3], mask, *ctx.numbers), tensors[3:]


class Attend(_Rule):
    """(q, k, v, mask, causal, scale) to the output and the statistics of its rows."""

    forward = staticmethod(operations.attention)  # see :func:`._forward.attend`

    @staticmethod
    def backward(ctx: Any, slope: Tensor, _: Any) -> Any:
        """Pull the gradient of the output back."""
        given, (out, statistics) = _given(ctx)
        found = PullBack.apply(*given, out, statistics, slope[None])
        return (*(piece[0] for piece in found), *NO_GRADIENT)

    @staticmethod
    def jvp(ctx: Any, q_t: Tensor, k_t: Tensor, v_t: Tensor, *_: Any) -> Any:
        """The tangent of the statistics holds the largest score fixed."""
        given, (out, statistics) = _given(ctx)
        along = (_one(t, p) for t, p in zip((q_t, k_t, v_t), given, strict=False))
        out_t, rho = AttendAlong.apply(*given, out, statistics, *along)
        return out_t[0], torch.cat([torch.zeros_like(rho[0]), rho[0]], -1)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """The mapped axis becomes part of the batch."""
        return heads_batched(Attend, info.batch_size, in_dims, args, leading=())


class AttendAlong(_Rule):
    """(..., out, statistics, q_t, k_t, v_t) to the derivatives of the output and of the rows' logarithms."""

    forward = staticmethod(operations.attention_along)  # see :func:`._forward.attend_along`

    @staticmethod
    def backward(ctx: Any, slope: Tensor, _: Any) -> Any:
        """The derivative is linear in the directions; in q, k, v its gradient is a Hessian times these."""
        given, (out, statistics, *along, out_t, rho) = _given(ctx)
        second = PullBackAlong.apply(*given, out, statistics, slope, *along, torch.zeros_like(slope), out_t, rho)
        first = PullBack.apply(*given, out, statistics, slope)
        return (*(piece.sum(0) for piece in second), *NO_GRADIENT, None, None, *first)

    jvp = staticmethod(_refuse)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """Mapped directions are more directions."""
        mapped = heads_batched if _primal_mapped(in_dims) else directions_batched
        return mapped(AttendAlong, info.batch_size, in_dims, args, leading=(8, 9, 10))


class PullBack(_Rule):
    """(..., out, statistics, slope) to the gradients of q, k, v, for each of T gradients of the output."""

    forward = staticmethod(operations.attention_backward)  # see :func:`._backward.pull_back`

    @staticmethod
    def backward(ctx: Any, *along: Any) -> Any:
        """The Hessian is symmetric."""
        given, (out, statistics, slope, *found) = _given(ctx)
        filled = [torch.zeros_like(f) if a is None else a for a, f in zip(along, found, strict=True)]
        moved = AttendAlong.apply(*given, out, statistics, *filled)
        second = PullBackAlong.apply(*given, out, statistics, slope, *filled, torch.zeros_like(slope), *moved)
        return (*(piece.sum(0) for piece in second), *NO_GRADIENT, None, None, moved[0])

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """With the tangents that the forward pass has given its outputs."""
        given, (out, statistics, slope, *_) = _given(ctx)
        q_t, k_t, v_t, *_, out_t, statistics_t, slope_t = tangents
        count = len(slope)
        along = [_one(t, p).expand(count, *p.shape) for t, p in zip((q_t, k_t, v_t), given, strict=False)]
        slope_t = torch.zeros_like(slope) if slope_t is None else slope_t
        if out_t is None or statistics_t is None:
            moved = AttendAlong.apply(*given, out, statistics, *along)
        else:
            rho = statistics_t[..., 1:]
            moved = out_t.expand(count, *out.shape), rho.expand(count, *rho.shape)
        return PullBackAlong.apply(*given, out, statistics, slope, *along, slope_t, *moved)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """Mapped gradients are more gradients."""
        mapped = heads_batched if _primal_mapped(in_dims) else directions_batched
        return mapped(PullBack, info.batch_size, in_dims, args, leading=(8,))


class PullBackAlong(_Rule):
    """(..., out, statistics, slope, q_t, k_t, v_t, slope_t, out_t, rho) to the derivatives of the gradients of q, k, v."""

    forward = staticmethod(operations.attention_backward_along)  # see :func:`._backward.pull_back_along`

    backward = jvp = staticmethod(_refuse)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """Mapped directions are more directions."""
        mapped = heads_batched if _primal_mapped(in_dims) else directions_batched
        return mapped(PullBackAlong, info.batch_size, in_dims, args, leading=(8, 9, 10, 11, 12, 13, 14))


def _one(tangent: Tensor | None, primal: Tensor) -> Tensor:
    """A direction with the leading axis; zeros where there is none."""
    return (torch.zeros_like(primal) if tangent is None else tangent)[None]


def _primal_mapped(in_dims: tuple[Any, ...]) -> bool:
    return any(dim is not None for dim in in_dims[:8])
