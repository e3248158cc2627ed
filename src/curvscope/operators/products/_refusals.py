"""Errors of PyTorch where it cannot differentiate an operation once more, in words that say what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from curvscope.errors import NotDifferentiable

MARKED = "once_differentiable"
REFUSALS = re.compile(
    r"derivative for .* (is|are) not implemented"
    r"|once_differentiable"
    r"|double[ -]backwards?( on \S+)?( is| are)?( currently)?( not|n't) (supported|implemented)"
    r"|(not|n't) support (3rd|third|second|double|higher|2nd)"
    r"|(not|n't) (twice )?differentiable( twice)?"
    r"|backward (of|for) .* (is )?not (supported|implemented)",
    re.IGNORECASE | re.DOTALL,
)
MOST_ARGUMENTS = 12
OTHERWISE = "; or pass strategy='differences', whose products are not exact and whose error is measured"


@contextmanager
def explained() -> Iterator[None]:
    """Inside, PyTorch's refusals to differentiate are raised as NotDifferentiable; other errors pass."""
    try:
        yield
    except NotDifferentiable:
        raise
    except RuntimeError as error:
        if not REFUSALS.search(str(error)):
            raise
        raise NotDifferentiable(explanation(str(error))) from error


def explanation(message: str) -> str:
    """Return what a refusal of PyTorch means, and the remedies.

    >>> explanation("double backwards on roi_align not supported")[:60]
    'PyTorch has no further derivative for an operation of this m'
    """
    return f"{_explanation(message)}{OTHERWISE}"


def _explanation(message: str) -> str:
    if MARKED in message:
        return (
            "the backward of a custom autograd function is marked once_differentiable, so there is no second derivative: "
            "write it with differentiable operations and without the mark"
        )
    if re.search("3rd|third", message):
        return (
            f"the loss contains a gradient, and PyTorch has no third derivative for an operation inside ({message}): "
            "replace that operation, such as a fused normalisation, by elementary ones"
        )
    if re.search("flex_?attention", message, re.IGNORECASE):
        return (
            f"flex_attention has no second derivatives ({message}): call functional.scaled_dot_product_attention, with "
            "attn_mask=create_mask(mask_mod, ...) for a block mask"
        )
    return (
        f"PyTorch has no further derivative for an operation of this model ({message}): replace that operation by "
        "differentiable ones, or for attention and recurrent layers choose the plain implementation instead of the fused kernel"
    )


def message_of(dead_end: Any) -> str:
    """Return what a node of a graph that only raises says; it is called, as nothing else tells."""
    for count in range(1, MOST_ARGUMENTS):
        try:
            dead_end(*[torch.zeros((), device="cpu")] * count)
        except TypeError:  # another number of arguments
            continue
        except RuntimeError as error:
            return str(error)
    return MARKED
