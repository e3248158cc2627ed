"""Logging and metrics inside a model's own training step, switched off while the model is evaluated for its curvature.

``self.log`` of Lightning and the metrics of torchmetrics store what they are given beyond the call. A derivative evaluates the
step on tensors of torch.func, which must not be stored: PyTorch ends with "INTERNAL ASSERT FAILED ... escaped?". What is
logged there would not be training's numbers either.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

LIGHTNING = ("lightning", "pytorch_lightning", "lightning_fabric")
LOGGED = ("log", "log_dict", "print")


@contextmanager
def without_bookkeeping(model: nn.Module) -> Iterator[None]:
    """Nothing is logged inside, and metrics keep no state.

    A metric that is differentiable may be the loss: it is evaluated afresh, without its state. Any other gives zero.
    """
    replaced: list[tuple[nn.Module, dict[str, Any], tuple[str, ...]]] = []
    for module in model.modules():
        if methods := _replacements(module):
            replaced.append((module, {name: vars(module)[name] for name in methods if name in vars(module)}, tuple(methods)))
            vars(module).update(methods)
    try:
        yield
    finally:
        for module, before, names in replaced:
            for name in names:
                vars(module).pop(name, None)
            vars(module).update(before)


def _replacements(module: nn.Module) -> dict[str, Any]:
    roots = {base.__module__.partition(".")[0] for base in type(module).__mro__}
    if not roots.isdisjoint(LIGHTNING):
        return {name: _nothing for name in LOGGED if hasattr(module, name)}
    if "torchmetrics" in roots:
        if getattr(module, "is_differentiable", False):
            return {"forward": _Fresh(module), "update": _nothing, "compute": _zero}
        return {"forward": _Zeros(module), "update": _nothing, "compute": _Zeros(module)}
    return {}


def _nothing(*_: Any, **__: Any) -> None:
    """Take what would be logged or counted, and do nothing."""


def _zero(*_: Any, **__: Any) -> torch.Tensor:
    return torch.zeros((), device="cpu")


class _Zeros:
    """Gives zero for a metric, and zeros by name for a collection of them."""

    def __init__(self, metric: nn.Module) -> None:
        self.names = tuple(metric.keys()) if isinstance(metric, nn.ModuleDict) else None

    def __call__(self, *_: Any, **__: Any) -> Any:
        return (
            torch.zeros((), device="cpu")
            if self.names is None
            else {name: torch.zeros((), device="cpu") for name in self.names}
        )


class _Fresh:
    """Evaluates a metric on one batch alone; it holds afterwards what it held before."""

    def __init__(self, metric: nn.Module) -> None:
        self.metric, self.own = metric, dict(vars(metric))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        metric: Any = self.metric  # torchmetrics' classes, which are not imported for this
        here = dict(vars(metric))
        lists: dict[str, list[Any]] = {name: [] for name, state in self.own.items() if isinstance(state, list)}
        vars(metric).update(self.own | lists)  # reset() empties lists in place
        vars(metric).pop("forward", None)
        try:
            metric.reset()
            return metric(*args, **kwargs)
        finally:
            vars(metric).clear()
            vars(metric).update(here)
