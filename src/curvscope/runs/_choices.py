"""What may be chosen of the operator of a model, for a problem's network and for the user's own alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from curvscope.errors import InvalidArgument
from curvscope.operators import (
    empirical_fisher,
    ggn,
    gradient_second_moment,
    hessian,
    monte_carlo_fisher,
)
from curvscope.operators.base import Operator
from curvscope.operators.collective import own_part
from curvscope.runs._weights import load_weights
from curvscope.system import TF32

HESSIAN = "hessian"
MATRICES: dict[str, Callable[..., Operator]] = {
    HESSIAN: hessian,
    "ggn": ggn,
    "empirical_fisher": empirical_fisher,
    "monte_carlo_fisher": monte_carlo_fisher,
    "gradient_second_moment": gradient_second_moment,
}
PRECISIONS = ("float64", "float32", "tf32", "bfloat16", "float16")


@dataclass(frozen=True)
class Choices:
    """A matrix, its arithmetic, its parameters, and where their values come from.

    Attributes:
        matrix: one of :data:`MATRICES`.
        precision: one of :data:`PRECISIONS`; None: that of the parameters.
        params: globs of the parameters that vary, or names of modules; None: all.
        device: where products are computed; None: where the model is.
        checkpoint: file with the weights; None: those that the model has.

    Raises:
        InvalidArgument: no such matrix, precision or device.

    >>> Choices.of({"target": "experiment:make", "matrix": "ggn", "step": 0}).made
    {'matrix': 'ggn'}
    """

    matrix: str = HESSIAN
    precision: str | None = None
    params: tuple[str, ...] | None = None
    device: str | None = None
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        matrix_of(self.matrix)
        arithmetic_of(self.precision)
        if self.device is not None:
            check_device(self.device)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Choices:
        """Return the choices among the options of a command or a run."""
        known = {field.name: options[field.name] for field in fields(cls) if options.get(field.name) is not None}
        if "params" in known:
            known["params"] = tuple(known["params"])
        return cls(**known)

    @property
    def made(self) -> dict[str, Any]:
        """Choices that differ from the default ones, in plain types."""
        chosen = {field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name) != field.default}
        return chosen | ({"params": list(self.params)} if self.params is not None else {})

    def operator(self, model: Any, loss: Any, data: Any) -> Operator:
        """Return the operator of a model under these choices.

        Raises:
            InvalidArgument: the checkpoint is of another model, or no parameter is chosen.
        """
        if self.checkpoint is not None:
            load_weights(model, Path(self.checkpoint))
        chosen: dict[str, Any] = {"params": None if self.params is None else list(self.params), "device": self.device}
        options = {name: value for name, value in chosen.items() if value is not None}
        return matrix_of(self.matrix)(model, loss, own_part(data, loss), **options, **arithmetic_of(self.precision))


def matrix_of(name: str) -> Callable[..., Operator]:
    """Return the function that makes a matrix, one of :data:`MATRICES`."""
    if name not in MATRICES:
        raise InvalidArgument(f"matrix {name!r}: choose one of {', '.join(MATRICES)}")
    return MATRICES[name]


def arithmetic_of(precision: str | None) -> dict[str, Any]:
    """The options of an operator whose products are computed in a precision, one of :data:`PRECISIONS`; None: its own.

    >>> arithmetic_of("tf32"), arithmetic_of("bfloat16")
    ({'precision': 'tf32'}, {'dtype': torch.bfloat16})
    """
    if precision not in (None, *PRECISIONS):
        raise InvalidArgument(f"precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if precision is None:
        return {}
    return {"precision": precision} if precision == TF32 else {"dtype": getattr(torch, precision)}


def check_device(name: str) -> None:
    """Raise InvalidArgument unless there is such a device here.

    >>> check_device("gpu")
    Traceback (most recent call last):
    curvscope.errors.InvalidArgument: device 'gpu': choose one of cpu
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise InvalidArgument(f"device {name!r}: choose one of {', '.join(here)}") from error
