"""Which operation of a loss has a wrong derivative: each is looked at alone, where the whole was found to be wrong.

Every call of the loss on floating point tensors is repeated in float64 with random directions and compared with central
differences: its derivative, its gradient, and the derivatives of that gradient in both modes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_flatten, tree_unflatten

log = logging.getLogger(__name__)

STEP = 1e-5
"""Relative step of the differences in float64: truncation and rounding are then about 1e-10."""
BESIDE = 1e-3
"""Relative distance from the values of the call at which it is looked at."""
SURE = 1e-4
"""Relative error from which a derivative is called wrong."""
SMOOTH = 1e-6
"""By how much differences with half of the step may differ from the others: more is a kink, which decides nothing."""
MOST_NUMBERS = 4_000_000
"""Numbers in the tensors of a call that is looked at, as it is repeated about 12 times in float64."""

TRIED_ERRORS = (RuntimeError, NotImplementedError, TypeError, ValueError, AssertionError, LookupError)


def wrong_operations(evaluate: Callable[[], Any], *, forward: bool) -> list[str]:
    """Names of the operations with a wrong derivative among those that a function calls on tensors that need a gradient.

    Args:
        evaluate: calls them; under ``torch.enable_grad``.
        forward: whether to look at forward mode, else at reverse mode.

    Cost: about 12 evaluations of each different call, in float64.
    """
    with torch.enable_grad(), _Noted() as noted:
        evaluate()
    found: dict[str, None] = {}
    for call in noted.calls.values():
        try:
            wrong = call.name not in found and _is_wrong(call, forward=forward)
        except TRIED_ERRORS as error:  # such as a function for float32 alone
            log.debug("%s cannot be looked at alone: %s", call.name, error)
            continue
        if wrong:
            found[call.name] = None
    return list(found)


@dataclass
class _Call:
    """A call of a function: its tensors in float64 and where they go, so that it can be repeated with others."""

    function: Callable[..., Any]
    leaves: list[Any]
    spec: Any
    places: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the function as a user writes it."""
        name = resolve_name(self.function) or getattr(self.function, "__name__", self.function)
        return str(name).removesuffix(".default")

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Tensors that the call was made with and that need a gradient."""
        return tuple(self.leaves[place] for place in self.places)

    def at(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Repeat the call with other inputs; returns its floating point tensors alone."""
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, inputs, strict=True):
            leaves[place] = tensor.clone()  # an operation in place writes to it
        args, kwargs = tree_unflatten(leaves, self.spec)
        return tuple(t for t in tree_flatten(self.function(*args, **kwargs))[0] if _is_real(t))


class _Noted(TorchFunctionMode):
    """Inside, the calls on tensors that need a gradient are noted: the first of each function with tensors of these shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[Any, _Call] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        call = self._call(func, args, kwargs or {})
        result = func(*args, **(kwargs or {}))
        if call is not None and any(_is_real(t) and t.requires_grad for t in tree_flatten(result)[0]):
            shapes = tuple(tuple(leaf.shape) if isinstance(leaf, Tensor) else repr(leaf) for leaf in call.leaves)
            self.calls.setdefault((func, shapes), call)
        return result

    @staticmethod
    def _call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call | None:
        """The call before it is made, as it may write to its tensors; None: nothing to look at."""
        leaves, spec = tree_flatten((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if not any(t.requires_grad for t in tensors) or sum(t.numel() for t in tensors) > MOST_NUMBERS:
            return None
        places = [place for place, leaf in enumerate(leaves) if _is_real(leaf) and leaf.requires_grad]
        doubled = [leaf.detach().double().clone() if _is_real(leaf) else leaf for leaf in leaves]
        return _Call(function, doubled, spec, places)


def _is_real(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.layout == torch.strided


def _is_wrong(call: _Call, *, forward: bool) -> bool:
    """Return whether a derivative of one call is off, where differences tell at all."""
    generator = torch.Generator().manual_seed(0)
    largest = max(1.0, *(float(t.abs().max()) for t in call.inputs if t.numel()))
    # Beside the point itself, which may lie on a kink: zeros before a ReLU.
    inputs, step = tuple(t + BESIDE * largest * _uniform(t, generator) for t in call.inputs), STEP * largest
    along = tuple(_uniform(t, generator) for t in inputs)
    weights = tuple(_uniform(t, generator) for t in call.at(*inputs))

    if forward:

        def gradient(*at: Tensor) -> tuple[Tensor, ...]:
            """The gradient in reverse mode, which forward mode then differentiates."""
            pulled: tuple[Tensor, ...] = torch.func.vjp(call.at, *at)[1](weights)
            return pulled

        return any(
            _differ(torch.func.jvp(function, inputs, along)[1], *_differences(function, inputs, along, step))
            for function in (call.at, gradient)
        )
    others = tuple(_uniform(t, generator) for t in inputs)
    for function, cotangents in ((call.at, weights), (lambda *at: _gradient(call.at, at, weights), others)):
        derivative = _dot(_gradient(function, inputs, cotangents), along).detach()
        differences = _differences(function, inputs, along, step)
        if _differ((derivative,), *((_dot(found, cotangents),) for found in differences)):
            return True
    return False


def _gradient(
    function: Callable[..., tuple[Tensor, ...]], at: tuple[Tensor, ...], cotangents: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """The derivative transposed, times cotangents, by plain autograd: custom operations do not run in torch.func."""
    leaves = tuple(t if t.requires_grad else t.detach().requires_grad_() for t in at)
    with torch.enable_grad():
        value = _dot(function(*leaves), cotangents)
        if not value.requires_grad:  # of a linear operation's gradient, or of one that hides what it depends on
            return tuple(torch.zeros_like(leaf) for leaf in leaves)
        found = torch.autograd.grad(value, leaves, create_graph=True, allow_unused=True, materialize_grads=True)
    return tuple(found)


def _differences(
    function: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...], along: tuple[Tensor, ...], step: float
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Central differences with a step, and with half of it."""

    def at(h: float) -> tuple[Tensor, ...]:
        """Central differences with step h."""
        moved = (function(*(t + sign * h * v for t, v in zip(inputs, along, strict=True))) for sign in (1, -1))
        return tuple((plus - minus).detach() / (2 * h) for plus, minus in zip(*moved, strict=True))

    return at(step), at(step / 2)


def _differ(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], again: tuple[Tensor, ...]) -> bool:
    """Return whether a derivative differs from differences that agree with one another."""
    scale = max(1e-12, *(float(t.abs().max()) for ts in (found, expected) for t in ts if t.numel()))
    scatter, error = (
        max(float((a - b).abs().max()) for a, b in zip(expected, other, strict=True) if a.numel()) for other in (again, found)
    )
    return scatter <= SMOOTH * scale and error > SURE * scale


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, dtype=torch.float64, device="cpu").sub_(0.5).to(like.device)


def _dot(left: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(left, right, strict=True)]).sum()
