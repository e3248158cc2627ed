"""What beside the parameters determines how training goes on: the optimizer, and the global random generators."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curvscope.errors import RunNotFound

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
            "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
            "python": [version, list(internal), gauss],
        }
    return state


def restore(state: TrainingState, optimizer: torch.optim.Optimizer | None) -> None:
    """Put back what :func:`capture` took.

    Raises:
        RunNotFound: an optimizer is given and its state was not captured.
    """
    if optimizer is not None:
        if "optimizer" not in state:
            raise RunNotFound("the optimizer's state was not recorded: pass optimizer=... to the Recorder")
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
    draft = file.with_name(f"{file.name}.partial")
    torch.save(state, draft)
    draft.replace(file)


def load_state(file: Path) -> TrainingState:
    """Read what :func:`save_state` wrote; nothing but tensors and plain containers is accepted."""
    return torch.load(file, weights_only=True)
