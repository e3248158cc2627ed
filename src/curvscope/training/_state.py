"""What beside the parameters determines how training continues: the optimizer, and the global random generators."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curvscope.errors import DamagedData, InvalidArgument, RunNotFound
from curvscope.store import Draft, open_plain

TrainingState = dict[str, Any]
"""Tensors, numbers and containers of them: ``torch.load(..., weights_only=True)`` reads it back."""


def capture(optimizer: torch.optim.Optimizer | None, *, random_state: bool) -> TrainingState:
    """A copy of the state, independent of what training does next."""
    state: TrainingState = {}
    if optimizer is not None:
        state["optimizer"] = copy.deepcopy(optimizer.state_dict())
    if random_state:
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global generator is what training uses
        version, internal, gauss = random.getstate()
        state["random"] = {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
            "python": [version, list(internal), gauss],
        }
    return state


def check_optimizer(state: TrainingState, optimizer: torch.optim.Optimizer | None) -> None:
    """Make sure that what :func:`capture` took can be put back, before anything is.

    Raises:
        RunNotFound: an optimizer is given and its state was not captured. InvalidArgument: it has other options than the one
            that was captured: PyTorch would exchange them without a word.
    """
    if optimizer is None:
        return
    if "optimizer" not in state:
        raise RunNotFound("the optimizer's state was not recorded: pass optimizer=... to the Recorder")
    recorded = {name for group in state["optimizer"]["param_groups"] for name in group}
    own = {name for group in optimizer.param_groups for name in group}
    if differing := sorted((recorded ^ own) - {"initial_lr", "param_names"}):  # these come and go with schedulers and names
        raise InvalidArgument(
            f"the recorded optimizer is no {type(optimizer).__name__} (only one of them has {', '.join(differing)}): pass one "
            "of the kind that was recorded"
        )


def restore(state: TrainingState, optimizer: torch.optim.Optimizer | None) -> None:
    """Put back what :func:`capture` took; see :func:`check_optimizer`."""
    if optimizer is not None:
        optimizer.load_state_dict(state["optimizer"])
    if "random" in state:
        kept = state["random"]
        torch.set_rng_state(kept["torch"])
        if kept["cuda"]:
            torch.cuda.set_rng_state_all(kept["cuda"])
        kind, keys, *rest = kept["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
        version, internal, gauss = kept["python"]
        random.setstate((version, tuple(internal), gauss))


def save_state(state: TrainingState, file: Path) -> None:
    """Write it, whole or not at all."""
    with Draft(file, durable=True) as draft:
        torch.save(state, draft)


def load_state(file: Path) -> TrainingState:
    """Read what :func:`save_state` wrote; nothing but tensors and plain containers is accepted.

    Raises:
        DamagedData: it cannot be read.
    """
    open_plain(file).close()
    try:
        state: dict[str, Any] = torch.load(file, weights_only=True)
        return state
    except Exception as error:  # torch.load fails in many ways on bytes that are something else
        raise DamagedData(f"{file} is damaged ({type(error).__name__}): restore another step") from error
