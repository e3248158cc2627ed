"""Rows of H scaled by an optimizer's preconditioner and learning rates, parameter by parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument, NotFinite
from curvscope.operators._parameters import Parameters
from curvscope.operators.optimizers._reading import (
    coupled_decay,
    flat,
    groups_of,
    place,
    plain_state,
    reader_of,
    state_of,
    unwrapped,
)
from curvscope.operators.optimizers._threshold import StabilityThreshold, dynamics_by_group, reference, stability_threshold


@dataclass(frozen=True)
class Scale:
    """What an optimizer makes of the parameters of an operator, all float64.

    Attributes:
        rows: (D,), sqrt(rate / (reference rate p)): the diagonal of P^(-1/2), learning rates included.
        decay: (D,), the weight decay that is part of the gradient.
        threshold: for the matrix with scaled rows and columns.
    """

    rows: Tensor
    decay: Tensor
    threshold: StabilityThreshold


def read_scale(optimizer: object, parameters: Parameters, model: nn.Module, device: torch.device) -> Scale:
    """Read the scale of every parameter of an operator from an optimizer of the model.

    Raises:
        InvalidArgument: a parameter that the optimizer does not move, or has no state of yet. NotFinite: a state with NaN.
    """
    found, threshold = unwrapped(optimizer), stability_threshold(optimizer)
    reader, groups = reader_of(found), groups_of(found)
    _, first = reference(found, dynamics_by_group(found))
    named: Mapping[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    rows, decay = [], []
    for name, length in zip(parameters.names, parameters.lengths, strict=True):
        own = named.get(name)
        if own is None or place(own) not in groups:
            raise InvalidArgument(
                f"the optimizer has no parameter {name!r} of the model: build the operator with params= those that it moves, "
                "and the optimizer with this very model"
            )
        parameter, group = groups[place(own)]
        state = plain_state(found, parameter)
        relative = first.threshold / reader.dynamics(group, state).threshold
        scale = torch.full((length,), relative, dtype=torch.float64, device=device)
        if reader.denominator is not None:
            scale /= flat(reader.denominator(group, state_of(found, parameter, name)), device)
        if not bool(torch.isfinite(scale).all()):
            raise NotFinite(f"the optimizer's state of {name!r} has zeros, NaN or infinity where a step divides by it")
        rows.append(scale.sqrt())
        decay.append(torch.full((length,), coupled_decay(group), dtype=torch.float64, device=device))
    return Scale(torch.cat(rows), torch.cat(decay), threshold)
