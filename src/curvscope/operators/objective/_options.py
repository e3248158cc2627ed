"""Options of an objective: their types, and checks before anything is evaluated."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal, TypedDict

import torch
from torch import nn

from curvscope.errors import InvalidArgument
from curvscope.operators._parameters import ParameterFilter
from curvscope.operators.objective._batches import Batch
from curvscope.operators.objective._isolation import BATCH_NORMS, DROPOUTS
from curvscope.system import check_options as check_kinds

log = logging.getLogger(__name__)


class SampleOptions(TypedDict, total=False):
    """Options of parameters, device, dtype and samples at a time; see :class:`.Objective`."""

    params: ParameterFilter | None
    dtype: torch.dtype | str | None
    precision: Literal["tf32"] | None
    device: torch.device | str | None
    microbatch: int | None


class WeightOptions(SampleOptions, total=False):
    """The same, and how batches are weighted."""

    weight: Callable[[Batch], float] | None
    reduction: Literal["mean", "sum"] | None


class ObjectiveOptions(WeightOptions, total=False):
    """All options of an :class:`.Objective`."""

    batchnorm: Literal["eval", "batch"] | None
    dropout: int | None
    noise: int | None
    weights: Literal["copy"] | None


def check_kinds_of(
    dtype: torch.dtype | str | None, device: torch.device | str | None, weight: Callable[..., float] | None
) -> None:
    """Raise InvalidType for what is no dtype, device or function; InvalidArgument for a device that does not exist."""
    check_kinds(check_kinds_of, {"dtype": dtype, "device": device, "weight": weight})


def check_options(
    model: nn.Module,
    microbatch: int | None,
    reduction: str | None,
    batchnorm: str | None,
    dropout: int | None,
    noise: int | None = None,
) -> None:
    """Raise InvalidArgument for options of an objective that cannot be; warn where dropout was asked for and there is none."""
    if microbatch is not None and (isinstance(microbatch, bool) or not (isinstance(microbatch, int) and microbatch >= 1)):
        raise InvalidArgument(f"microbatch={microbatch!r}: choose a number of samples >= 1, or None")
    if reduction not in (None, "mean", "sum"):
        raise InvalidArgument(f"reduction={reduction!r}: choose 'mean' or 'sum', or None for the criterion's own")
    if batchnorm not in (None, "eval", "batch"):
        raise InvalidArgument(f"batchnorm={batchnorm!r}: choose 'eval' (running statistics) or 'batch'")
    if dropout is not None and (isinstance(dropout, bool) or not isinstance(dropout, int)):
        raise InvalidArgument(f"dropout={dropout!r}: pass a seed for fixed dropout masks, or None for no dropout")
    if noise is not None and (isinstance(noise, bool) or not isinstance(noise, int) or noise < 0):
        raise InvalidArgument(f"noise={noise!r}: pass a seed for one fixed draw, an integer at least 0, or None")
    if batchnorm == "batch" and microbatch is not None and any(isinstance(m, BATCH_NORMS) for m in model.modules()):
        raise InvalidArgument("microbatch would change the batch statistics: drop it, or choose batchnorm='eval'")
    if dropout is not None and not any(isinstance(module, DROPOUTS) for module in model.modules()):
        # functional dropout in a module of one's own stays off
        log.warning("dropout was asked for, but the model has no dropout layer: functional dropout stays off, use nn.Dropout")
