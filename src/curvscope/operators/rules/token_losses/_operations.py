"""The calculations as operations of PyTorch's own kind, so that a recorded program has one call for each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from curvscope.operators.rules.token_losses._chunks import Head, losses, losses_along, pull_back, pull_back_along
from curvscope.operators.rules.token_losses._curvature import Scores, Tangents, count, score_curvature, softmax_curvature

LIBRARY = torch.library.Library("curvscope", "FRAGMENT")
HEAD = "Tensor inputs, Tensor weight, Tensor bias, Tensor labels, int ignored"
ALONG = "Tensor inputs_t, Tensor weight_t, Tensor bias_t"
SOME = "Tensor? inputs_t, Tensor? weight_t, Tensor? bias_t"
SCORES = "Tensor drawn, Tensor whole, Tensor own, Tensor even, Tensor? classes, Tensor factor"


def _losses(*args: Any) -> tuple[Tensor, Tensor]:
    with torch._C.DisableTorchFunction():
        return losses(Head(*args))


def _losses_along(*args: Any) -> tuple[Tensor, Tensor]:
    with torch._C.DisableTorchFunction():
        return losses_along(Head(*args[:5]), args[5], args[6:])


def _backward(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    with torch._C.DisableTorchFunction():
        return pull_back(Head(*args[:5]), *args[5:])


def _backward_along(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    with torch._C.DisableTorchFunction():
        return pull_back_along(Head(*args[:5]), args[5], args[6], args[7:10], args[10])


def _softmax_curvature(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    with torch._C.DisableTorchFunction():
        return _filled(softmax_curvature(Head(*args[:5]), args[5], args[6], args[7:]), args[0])


def _score_curvature(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    with torch._C.DisableTorchFunction():
        return _filled(score_curvature(Head(*args[:5]), args[5], Scores(*args[6:12]), args[12:]), args[0])


def _filled(found: Tangents, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Empty tensors in the place of what is not wanted: an operation returns tensors."""
    number = count(found)
    h, w, b = (like.new_empty(number, 0) if piece is None else piece for piece in found)
    return h, w, b


def _some(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _filled(tuple(None if t is None else torch.empty_like(t) for t in args[-3:]), args[0])  # type: ignore[arg-type]


def _two(*args: Any) -> tuple[Tensor, Tensor]:
    leading = args[6].shape[:1] if len(args) > 5 else ()
    return args[0].new_empty(*leading, len(args[0])), args[0].new_empty(*leading, len(args[0]))


def _three(*args: Any) -> tuple[Tensor, ...]:
    return tuple(tensor.new_empty(len(args[-1]), *tensor.shape) for tensor in args[:3])


for name, arguments, returned, kernel, shapes in (
    ("token_losses", HEAD, "(Tensor, Tensor)", _losses, _two),
    ("token_losses_along", f"{HEAD}, Tensor logsumexp, {ALONG}", "(Tensor, Tensor)", _losses_along, _two),
    ("token_losses_backward", f"{HEAD}, Tensor logsumexp, Tensor slopes", "(Tensor, Tensor, Tensor)", _backward, _three),
    (
        "token_losses_backward_along",
        f"{HEAD}, Tensor logsumexp, Tensor slopes, {ALONG}, Tensor slopes_t",
        "(Tensor, Tensor, Tensor)",
        _backward_along,
        _three,
    ),
    (
        "token_softmax_curvature",
        f"{HEAD}, Tensor logsumexp, Tensor factor, {SOME}",
        "(Tensor, Tensor, Tensor)",
        _softmax_curvature,
        _some,
    ),
    (
        "token_score_curvature",
        f"{HEAD}, Tensor logsumexp, {SCORES}, {SOME}",
        "(Tensor, Tensor, Tensor)",
        _score_curvature,
        _some,
    ),
):
    LIBRARY.define(f"{name}({arguments}) -> {returned}")
    LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
    LIBRARY.impl(name, shapes, "Meta")
