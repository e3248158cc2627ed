"""The derivatives of the losses of tokens for autograd, ``torch.func`` and ``vmap``, up to the second.

As for attention, the Hessian is symmetric: what differentiates the gradient along a direction also pulls back through it.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import Function

from curvscope.errors import NotDifferentiable
from curvscope.operators.rules.attention import directions_batched
from curvscope.operators.rules.token_losses._chunks import Head
from curvscope.operators.rules.token_losses._curvature import Scores, Tangents
from curvscope.operators.rules.token_losses._operations import LIBRARY  # noqa: F401 -- defines the operations

operations = torch.ops.curvscope


def _refuse(ctx: Any, *tangents: Any) -> NoReturn:
    """Third derivatives, in either mode."""
    raise NotDifferentiable(
        "a cross-entropy over a large vocabulary is differentiated three times: it has two derivatives here"
    )


class _Rule(Function):
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep inputs and outputs."""
        h, w, b, labels, ctx.ignored, *others = inputs
        ctx.save_for_backward(h, w, b, labels, *others, *output)
        ctx.save_for_forward(h, w, b, labels, *others, *output)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> NoReturn:
        """Inputs that differ from sample to sample never come here, see :mod:`._pending`."""
        raise RuntimeError("the losses of tokens cannot be vectorised over their inputs")


def _given(ctx: Any) -> tuple[tuple[Any, ...], list[Tensor]]:
    h, w, b, labels, *others = ctx.saved_tensors
    return (h, w, b, labels, ctx.ignored), others


class TokenLosses(_Rule):
    """(inputs, weight, bias, labels, ignored) to the losses and the logsumexp of the logits."""

    forward = staticmethod(operations.token_losses)  # see :func:`._chunks.losses`

    @staticmethod
    def backward(ctx: Any, slope: Tensor, _: Any) -> Any:
        """Pull the derivatives by the losses back."""
        given, (_, logsumexp) = _given(ctx)
        return (*(piece[0] for piece in PullBack.apply(*given, logsumexp, slope[None])), None, None)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """Along a direction of inputs, weight and bias."""
        given, (_, logsumexp) = _given(ctx)
        found = LossesAlong.apply(*given, logsumexp, *_directions(tangents, given, 1))
        return tuple(piece[0] for piece in found)


class LossesAlong(_Rule):
    """(..., logsumexp, inputs_t, weight_t, bias_t) to the derivatives of losses and logsumexp."""

    forward = staticmethod(operations.token_losses_along)  # see :func:`._chunks.losses_along`

    @staticmethod
    def backward(ctx: Any, slopes: Tensor, _: Any) -> Any:
        """Linear in the directions; in the rest its gradient is a Hessian times these."""
        given, (logsumexp, *along, _, _) = _given(ctx)
        second = PullBackAlong.apply(*given, logsumexp, slopes, *along, torch.zeros_like(slopes))
        return (*(piece.sum(0) for piece in second), None, None, None, *PullBack.apply(*given, logsumexp, slopes))

    jvp = staticmethod(_refuse)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """Mapped directions are more directions."""
        return directions_batched(LossesAlong, info.batch_size, in_dims, args, leading=(6, 7, 8))


class PullBack(_Rule):
    """(..., logsumexp, slopes) to the gradients of inputs, weight and bias, for each of T derivatives by the losses."""

    forward = staticmethod(operations.token_losses_backward)  # see :func:`._chunks.pull_back`

    @staticmethod
    def backward(ctx: Any, *along: Any) -> Any:
        """The Hessian is symmetric."""
        given, (logsumexp, slopes, *found) = _given(ctx)
        filled = [torch.zeros_like(f) if a is None else a for a, f in zip(along, found, strict=True)]
        second = PullBackAlong.apply(*given, logsumexp, slopes, *filled, torch.zeros_like(slopes))
        into_slopes = LossesAlong.apply(*given, logsumexp, *filled)[0]
        return (*(piece.sum(0) for piece in second), None, None, None, into_slopes)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """Along a direction of inputs, weight, bias and the derivatives by the losses."""
        given, (logsumexp, slopes, *_) = _given(ctx)
        slopes_t = torch.zeros_like(slopes) if tangents[-1] is None else tangents[-1]
        return PullBackAlong.apply(*given, logsumexp, slopes, *_directions(tangents, given, len(slopes)), slopes_t)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """Mapped derivatives are more of them."""
        return directions_batched(PullBack, info.batch_size, in_dims, args, leading=(6,))


class PullBackAlong(_Rule):
    """(..., logsumexp, slopes, inputs_t, weight_t, bias_t, slopes_t) to the derivatives of the gradients."""

    forward = staticmethod(operations.token_losses_backward_along)  # see :func:`._chunks.pull_back_along`

    backward = jvp = staticmethod(_refuse)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """Mapped directions are more directions."""
        return directions_batched(PullBackAlong, info.batch_size, in_dims, args, leading=(6, 7, 8, 9, 10))


class _Symmetric(_Rule):
    """A symmetric map of directions, which nobody differentiates; see :mod:`._curvature`."""

    backward = jvp = staticmethod(_refuse)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep nothing."""


class SoftmaxCurvature(_Symmetric):
    """(..., logsumexp, factor, inputs_t, weight_t, bias_t) to the map of these directions."""

    forward = staticmethod(operations.token_softmax_curvature)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """Mapped directions are more directions."""
        return directions_batched(SoftmaxCurvature, info.batch_size, in_dims, args, leading=_given_among(args, 7))


class ScoreCurvature(_Symmetric):
    """(..., logsumexp, the fields of :class:`._curvature.Scores`, inputs_t, weight_t, bias_t) to the map of these."""

    forward = staticmethod(operations.token_score_curvature)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """Mapped directions are more directions."""
        return directions_batched(ScoreCurvature, info.batch_size, in_dims, args, leading=_given_among(args, 12))


def softmax_map(head: Head, logsumexp: Tensor, factor: Tensor, along: Tangents) -> Tangents:
    """One direction through :func:`._curvature.softmax_curvature`; inside of ``vmap`` those of all its entries share chunks.

    Args:
        head: the last layer and its labels.
        logsumexp: of the logits, see :func:`logsumexp_of`.
        factor: of each token, (n,).
        along: a direction of inputs, weight and bias; None for what does not vary, and is not wanted.
    """
    found = SoftmaxCurvature.apply(*head, logsumexp, factor, *_leading(along))
    return _wanted(found, along)


def score_map(head: Head, logsumexp: Tensor, scores: Scores, along: Tangents) -> Tangents:
    """One direction through :func:`._curvature.score_curvature`; see :func:`softmax_map`."""
    return _wanted(ScoreCurvature.apply(*head, logsumexp, *scores, *_leading(along)), along)


def logsumexp_of(head: Head) -> Tensor:
    """The logsumexp of the logits of each token, (n,)."""
    found: Tensor = operations.token_losses(*head)[1]
    return found


def _leading(along: Tangents) -> tuple[Tensor | None, ...]:
    return tuple(None if tensor is None else tensor[None] for tensor in along)


def _wanted(found: tuple[Tensor, ...], along: Tangents) -> Tangents:
    h, w, b = (None if tensor is None else piece[0] for piece, tensor in zip(found, along, strict=True))
    return h, w, b


def _given_among(args: tuple[Any, ...], first: int) -> tuple[int, ...]:
    """Places, from ``first`` on, of arguments that are not None."""
    return tuple(place for place in range(first, len(args)) if args[place] is not None)


def _directions(tangents: tuple[Any, ...], given: tuple[Any, ...], count: int) -> list[Tensor]:
    pairs = zip(tangents[:3], given[:3], strict=True)
    return [(torch.zeros_like(p) if t is None else t).expand(count, *p.shape) for t, p in pairs]
