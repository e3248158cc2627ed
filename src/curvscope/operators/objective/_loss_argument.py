"""What the ``loss`` argument means: a criterion of the output, or a function of the model and a batch."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from curvscope.errors import InvalidType
from curvscope.operators._parameters import leaves
from curvscope.operators.objective._batch_loss import BatchLoss
from curvscope.operators.objective._batches import CRITERIA, is_pair, move
from curvscope.operators.objective._losses import MethodLoss, loss_hint, models_own_loss, takes_model

Loss = Callable[..., Tensor] | str


def understood(loss: Loss, model: nn.Module, device: torch.device, dtype: torch.dtype) -> tuple[Callable[..., Any], bool]:
    """Return the loss as a function, and whether it is a criterion; a criterion's buffers are copied to device and dtype.

    Raises:
        InvalidType: it is neither.
    """
    if loss == "model":
        return models_own_loss, False
    if isinstance(loss, str) and loss.isidentifier() and callable(getattr(model, loss, None)):
        return MethodLoss(model, loss), False
    if not callable(loss) or isinstance(loss, type):
        raise InvalidType(
            f"loss is {loss!r}, expected a criterion (output, target), a function loss(model, batch), 'model', "
            "or the name of a method of the model, such as 'training_step'"
            f"{loss_hint(loss)}"
        )
    if inspect.isfunction(loss) and loss in CRITERIA:
        loss = CRITERIA[loss]()
    if isinstance(loss, nn.Module) and next(loss.buffers(), None) is not None:
        loss = copy.deepcopy(loss).to(device, dtype)
    return loss, not takes_model(loss)


def is_loss_of_model(objective: BatchLoss) -> bool:
    """Return whether a function of two arguments is a loss(model, batch), told by one evaluation on the first batch."""
    first = next(iter(objective.data), None)
    if first is None or any(isinstance(leaf, np.ndarray) for leaf in tree_leaves(first)):
        return False
    # With gradients: a loss may differentiate with respect to its inputs, and what a model keeps is seen to depend on them.
    with objective.isolated(), torch.enable_grad():
        batch = move(first, objective.device, objective.dtype)
        for with_model in (False, True):
            if not with_model and not is_pair(batch):
                continue
            objective.has_criterion = not with_model
            try:
                found = objective.loss(leaves(objective.values), batch)
            except Exception:  # noqa: BLE001 -- the form that is right fails below with its own message, if it fails
                continue
            finally:
                objective.has_criterion = True
            return with_model and isinstance(found, Tensor) and found.numel() == 1
    return False
