"""Losses as people pass them: what kind they are, and what they are called."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument, NotDifferentiable, NotFinite
from curvscope.operators.objective._batches import CRITERIA, ELEMENTWISE, Batch

COUNTED = (nn.CrossEntropyLoss, nn.NLLLoss, *ELEMENTWISE)
"""Criteria whose terms are known."""


class CallWithModel(nn.Module):
    """``function(model, argument)`` as a module, so that functional_call can reach the model's parameters."""

    def __init__(self, model: nn.Module, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, argument: Any) -> Tensor:
        """Call the function with the model."""
        return self.function(self.model, argument)


GROUPED = re.compile(r"Expected mat_[ab] to be Float32|grouped_mm")
"""What PyTorch says where experts are multiplied in groups in a dtype that this product does not have."""


def advice_on(message: str, dtype: torch.dtype) -> str:
    """Return what to do about an error of a model's forward pass.

    >>> advice_on("Expected mat_a to be Float32, BFloat16 or Float16 matrix, got Double", torch.float64)[:56]
    'The experts are multiplied by torch.nn.functional.groupe'
    """
    if GROUPED.search(message):
        return (
            f"The experts are multiplied by torch.nn.functional.grouped_mm, which has no {str(dtype).removeprefix('torch.')}: "
            "call model.set_experts_implementation('eager') first (transformers), or leave out dtype="
        )
    if "FlexAttention" in message or "flex_attention" in message:
        return (
            "flex_attention has no second derivatives: call functional.scaled_dot_product_attention, with "
            "attn_mask=create_mask(mask_mod, ...) for a block mask, and an additive mask for an additive score_mod"
        )
    return "Look at the batch's shapes and dtypes, and at what the model returns for it"


def plain_call(model: nn.Module, argument: Any) -> Tensor:
    """Call the model and return its output."""
    output: Tensor = model(argument)
    return output


def models_own_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Return the loss that a Hugging Face model gives for a batch with labels.

    Raises:
        InvalidArgument: another batch.
    """
    if not isinstance(batch, dict):
        raise InvalidArgument(f"loss='model' needs batches that are mappings with 'labels', got a {type(batch).__name__}")
    output = model(**batch)
    loss: Tensor | None = getattr(output, "loss", None)
    if loss is None:
        raise InvalidArgument(
            f"loss='model' needs batches that are mappings with 'labels', or whatever {type(model).__name__} computes its loss "
            f"from, and a model that returns it as .loss; got {type(output).__name__} for a batch with keys {list(batch)}"
        )
    return loss


class MethodLoss:
    """The loss that a method of the model computes from a batch, such as Lightning's ``training_step(batch, batch_idx)``.

    Arguments that count batches are 0: Lightning passes them by position, so a step may give them any names.

    Raises:
        InvalidArgument: the method needs something else beside the batch.
    """

    def __init__(self, model: nn.Module, method: str) -> None:
        self.method = method
        self.__qualname__ = f"{type(model).__qualname__}.{method}"
        self.function = getattr(type(model), method, getattr(model, method))
        known = list(inspect.signature(getattr(model, method)).parameters.values())
        needed = [other.name for other in known[1:] if other.default is other.empty and other.kind not in VARIABLE]
        counted = needed[:2] if method in STEPS else []
        if missing := [name for name in needed if name not in (*INDICES, *counted)]:
            raise InvalidArgument(
                f"{self.__qualname__} needs {', '.join(missing)} beside the batch: "
                "pass a function loss(model, batch) that gives it"
            )
        self.extra = {other.name: 0 for other in known[1:] if other.name in (*INDICES, *counted)}
        gathered = method in STEPS and any(other.kind is other.VAR_POSITIONAL for other in known)
        self.positional = (0,) if gathered else ()

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Call the method; a mapping is asked for its "loss".

        Raises:
            InvalidArgument: the method returns no loss, as where it updates the parameters itself.
        """
        returned = getattr(model, self.method)(batch, *self.positional, **self.extra)
        found: Tensor | None = returned.get("loss") if isinstance(returned, Mapping) else returned
        if found is None:
            raise InvalidArgument(
                f"{self.__qualname__} returns no loss (as steps do that optimize by hand): pass a function loss(model, batch)"
            )
        return found


STEPS = ("training_step", "validation_step", "test_step")
"""Methods that Lightning calls with a batch, its index and, where there are several loaders, the loader's."""
VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
INDICES = ("batch_idx", "batch_nb", "batch_index", "dataloader_idx", "optimizer_idx")
"""Arguments of a step that count batches; a loss that depends on them is that of the first batch."""


def checked_value(loss: Any, what: str) -> float:
    """The number that a loss is; ``what`` names it.

    Raises:
        InvalidArgument: not a scalar. NotDifferentiable: an integer. NotFinite: NaN or infinite.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        if isinstance(loss, tuple | list) and loss and isinstance(loss[0], Tensor) and loss[0].numel() == 1:
            raise InvalidArgument(
                f"{what} is a {type(loss).__name__} whose first of {len(loss)} items is a scalar, expected the scalar alone: "
                "wrap the function that returns it, as in lambda model, batch: loss(model, batch)[0]"
            )
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise InvalidArgument(f"{what} is {got}, expected a scalar: use reduction='mean'")
    if not loss.is_floating_point():
        raise NotDifferentiable(f"{what} is {loss.dtype}: it must be a floating-point scalar")
    value = float(loss)
    if not isfinite(value):
        raise NotFinite(f"{what} is {value}: look at that batch's inputs and at the parameters")
    return value


def dependent(value: Tensor) -> Tensor:
    """The value, if it depends on the parameters; raises NotDifferentiable otherwise."""
    if not value.requires_grad:
        raise NotDifferentiable(
            "the loss does not depend on the chosen parameters, or is computed under no_grad or from detached values: "
            "compute it from the model's output with differentiable operations, and checkpoint with use_reentrant=False"
        )
    return value


def depends_on(loss: Any, values: Sequence[Tensor]) -> bool:
    """Return whether a loss was computed from any of these leaves of its graph; cost: a walk along the graph."""
    wanted = {id(value) for value in values}
    waiting, seen = [getattr(loss, "grad_fn", None)], set()
    if id(loss) in wanted:
        return True
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if id(getattr(node, "variable", None)) in wanted:
            return True
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
    return False


def independent(names: Sequence[str]) -> str:
    """Return what is said of a loss that depends on none of the parameters, whose Hessian would be zero."""
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return (
        f"the loss does not depend on the parameters ({shown}): every second derivative is zero. Look for .detach(), .item(), "
        ".numpy(), .data or torch.no_grad() between the parameters and the loss, for a loss that ignores the model's output, "
        "and for params= that the model does not use"
    )


def takes_model(loss: Callable[..., Tensor]) -> bool:
    """Return whether a loss takes a model and a batch, told by the name of its first parameter, rather than an output."""
    if isinstance(loss, nn.Module):
        return False
    try:
        names = list(inspect.signature(loss).parameters)
    except (TypeError, ValueError):
        return False
    return bool(names) and names[0] in ("model", "net", "network", "module")


OUTPUTS = ("output", "outputs", "out", "input", "logits", "pred", "preds", "prediction", "y_hat", "y_pred", "yhat", "z")
"""Names of a first parameter that say that it is the output of a network."""


def is_undecided(loss: Any) -> bool:
    """Return whether the names of a function's parameters do not tell what it takes: (output, target) or (model, batch)."""
    if not inspect.isfunction(loss) or (loss.__module__ or "").startswith("torch."):
        return False
    names = list(inspect.signature(loss).parameters)
    return len(names) >= 2 and names[0] not in OUTPUTS


def named_criterion(loss: Any) -> Any:
    """Return the function of ``torch.nn.functional`` that a text names, such as "cross_entropy"; anything else as it is."""
    known = {function.__name__: function for function in CRITERIA}
    known |= {"nll_loss": nn.functional.nll_loss, "l1_loss": nn.functional.l1_loss, "huber_loss": nn.functional.huber_loss}
    return known.get(loss, loss) if isinstance(loss, str) else loss


def loss_hint(loss: Any) -> str:
    """Return what to pass for a loss that was given by name or as a class; empty for others."""
    if isinstance(loss, type):
        return f": pass an instance, {loss.__name__}()"
    if isinstance(loss, str):
        if loss.endswith("_step"):
            return ": the model has no such method"
        found = getattr(nn.functional, loss, None)
        module = {"ce": "cross_entropy", "mse": "mse_loss", "crossentropy": "cross_entropy", "nll": "nll_loss"}.get(
            loss.lower()
        )
        name = loss if callable(found) else module
        return f": pass the function itself, torch.nn.functional.{name}" if name else ": pass nn.CrossEntropyLoss() or the like"
    return ""


def name_of(loss: Callable[..., Tensor]) -> str:
    """Return the name of a loss, with its options."""
    if isinstance(loss, nn.Module):
        return f"{type(loss).__qualname__} {loss.extra_repr()} {getattr(loss, 'reduction', '')}"
    return getattr(loss, "__qualname__", type(loss).__qualname__)


def own_reduction(loss: Callable[..., Tensor]) -> str | None:
    """Return what a criterion says that it does with its terms: "mean", "sum", "batchmean" or "none"; None: it does not say.

    >>> own_reduction(nn.MSELoss()), own_reduction(partial(nn.functional.mse_loss, reduction="sum")), own_reduction(print)
    ('mean', 'sum', None)
    """
    if isinstance(loss, partial):
        given = loss.keywords.get("reduction")
        return given if isinstance(given, str) else own_reduction(loss.func)
    said = getattr(loss, "reduction", None)
    if isinstance(said, str):
        return said
    if getattr(loss, "__module__", "") != nn.functional.__name__ and loss not in CRITERIA:
        return None
    default = inspect.signature(loss).parameters.get("reduction")
    return default.default if default is not None and isinstance(default.default, str) else None


def check_reduction(loss: Callable[..., Tensor], reduction: str | None) -> None:
    """Raise InvalidArgument where ``reduction`` contradicts what the criterion says of itself."""
    own = own_reduction(loss)
    if reduction is None or own is None or (own == "sum") == (reduction == "sum"):
        return
    remedy = "leave reduction= out" if isinstance(loss, nn.Module) else f"pass the loss with reduction={reduction!r} of its own"
    raise InvalidArgument(
        f"reduction={reduction!r}, but {name_of(loss).split()[0]} itself has reduction={own!r}: {remedy}, or change the "
        "criterion's reduction; reduction= is for functions that do not say what they do with their terms"
    )
