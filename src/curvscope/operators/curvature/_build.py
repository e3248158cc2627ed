"""From what users pass (a model or function, a loss, data, options) to an objective and the options of its products."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict, TypeVar, cast

import numpy as np
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators._algebra import Arithmetic, Sum
from curvscope.operators.collective import GroupOptions, refuse_a_part
from curvscope.operators.curvature._operator import ProductOptions
from curvscope.operators.objective import (
    FunctionObjective,
    LogitsObjective,
    Loss,
    Objective,
    ObjectiveOptions,
    WeightOptions,
    is_function,
)
from curvscope.system import integer, unknown_argument

log = logging.getLogger(__name__)


class FunctionOptions(TypedDict, total=False):
    """Of functions of a pytree of tensors: ``criterion``, ``(outputs, target) -> scalar``; see :class:`.FunctionObjective`."""

    criterion: Loss | None


class MatrixOptions(ObjectiveOptions, ProductOptions, FunctionOptions, GroupOptions, total=False):
    """All options of :func:`hessian` and :func:`ggn`: those of :class:`.objective.Objective` and of :class:`ProductOptions`."""


class FisherOptions(WeightOptions, ProductOptions, FunctionOptions, GroupOptions, total=False):
    """All options of the Fisher matrices: those of :class:`.WeightOptions` and of :class:`.ProductOptions`."""


def build(
    model: nn.Module | Callable[..., Any], loss: Any, data: Iterable[Any] | None, options: Mapping[str, Any], allowed: type
) -> tuple[Objective, ProductOptions]:
    """The objective, and what is left of its options for the products.

    Raises:
        InvalidType: an option that is not in ``allowed``, a typed dictionary, or no data for a model.
    """
    known = allowed.__annotations__
    if unknown := [name for name in options if name not in known]:
        raise InvalidType(unknown_argument("", unknown[0], sorted({*known, "damping"})))
    if loss is None and options.get("criterion") is None and computes_own_loss(model, data):
        loss = "model"
    if loss is None and options.get("criterion") is None and not is_function(model):
        own = "'training_step'" if hasattr(model, "training_step") else "nn.CrossEntropyLoss()"
        raise InvalidType(f"loss is missing: pass (model, loss, data), such as (model, {own}, loader)")
    _say_own_batches(model, options.get("group"))
    options = {name: value for name, value in options.items() if name != "group"}
    refuse_a_part(data)
    if isinstance(dtype := options.get("dtype"), np.dtype) or (isinstance(dtype, type) and issubclass(dtype, np.generic)):
        options = {**options, "dtype": np.dtype(dtype).name}
    for name in ("width", "microbatch"):
        if options.get(name) is not None:
            options = {**options, name: integer(name, options[name])}
    products = {name: value for name, value in options.items() if name in ProductOptions.__annotations__}
    rest = {name: value for name, value in options.items() if name not in products}
    objective: Objective
    if is_function(model):
        if beside := [name for name in rest if name not in WeightOptions.__annotations__ and name != "criterion"]:
            raise InvalidArgument(f"{beside[0]}= is for models: a function of parameters has no layers that it could change")
        objective = FunctionObjective(model, loss, data, **rest)
    elif (criterion := rest.pop("criterion", None)) is not None and loss is not None:
        raise InvalidArgument("criterion= is for functions of parameters: for a model pass it as the loss")
    elif data is None:
        raise InvalidType(
            "data is missing: pass (model, loss, data), or (function, parameters) for a scalar function of tensors"
        )
    else:
        objective = Objective(cast("nn.Module", model), criterion if loss is None else loss, data, **rest)
    check_weights(objective)
    return objective, cast("ProductOptions", products)


def _say_own_batches(model: Any, group: Any) -> None:
    """Say in the log that a replica among several, without a group, is measured on the batches of its own process."""
    if group is None and isinstance(model, DistributedDataParallel) and (others := dist.get_world_size() - 1):
        log.warning(
            "the batches of this process alone are measured, not those of the %d other%s: pass group='world' for the matrix of "
            "all of them, or the same data in every process",
            others,
            "s" * (others > 1),
        )


def computes_own_loss(model: Any, data: Any) -> bool:
    """Return whether a model is Hugging Face's and the data is a batch with labels, or a sequence of such."""
    first = data if isinstance(data, Mapping) else data[0] if isinstance(data, list | tuple) and data else None
    return hasattr(model, "config") and isinstance(model, nn.Module) and isinstance(first, Mapping) and "labels" in first


def with_criterion(objective: Objective, matrix: str) -> Objective:
    """The objective, cut where the network ends and the loss begins: at the logits of a model that computes its own loss.

    Raises:
        InvalidArgument: it is not known where to cut.
    """
    if objective.has_criterion:
        return objective
    if objective.is_models_own:
        return LogitsObjective(objective)
    if isinstance(objective, FunctionObjective):
        raise InvalidArgument(
            f"{matrix} needs to know the outputs that the loss is a function of: pass function(parameters, x) -> outputs, data "
            "that yields (x, y), and criterion=(outputs, y) -> scalar; of a scalar function alone only the Hessian is known"
        )
    raise InvalidArgument(
        f"{matrix} needs to know where the network ends and the loss begins: pass a criterion (output, target) and "
        "data that yields (x, y), or loss='model' for a Hugging Face model, not a function loss(model, batch)"
    )


def check_weights(objective: Objective) -> None:
    """Say so where batches, or pieces of them, are not weighted by what the loss averages over: a warning in the log.

    Raises:
        InvalidArgument: ``microbatch`` would give another function.
    """
    if objective.weighs_right is not False:
        return
    what, terms = ("sum", "") if objective.sums else ("mean", ", weighted by their numbers of samples or labels")
    reason = f"the loss of a batch is not the {what} of its halves' losses{terms}"
    remedy = (
        "pass weight=lambda batch: number of loss terms (with class weights or ignored labels: what the mean divides by), "
        "reduction='sum' for a sum, or nn.CrossEntropyLoss(...) and the like as modules, which are understood"
    )
    if objective.num_pieces > objective.num_batches:
        raise InvalidArgument(f"{reason}, so that microbatch would change the matrix: {remedy}; or drop microbatch")
    log.warning("%s, so that other batches of the same data would give another matrix: %s", reason, remedy)


Matrix = TypeVar("Matrix", bound=Arithmetic)


def with_damping(matrix: Matrix, damping: float | None) -> Matrix | Sum:
    """The matrix plus damping times the identity; the matrix itself for None."""
    return matrix if damping is None else matrix.shift(damping)
