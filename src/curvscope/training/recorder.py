"""Parameters at chosen steps of training, as safetensors files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from curvscope.errors import InvalidArgument, RunConflict, RunNotFound


class Recorder:
    """Keeps a model's parameters and buffers at chosen steps; call :meth:`step` before each update.

    "Step s" are the parameters before update s, so step 0 is the initialisation.

    Args:
        model: whose ``state_dict`` is recorded.
        steps: which steps to keep.
        path: directory for one safetensors file a step, ``step_000100.safetensors``; None keeps copies in memory.

    Raises:
        InvalidArgument: no steps, or negative ones. RunConflict: ``path`` already holds one of these steps.

    >>> model = nn.Linear(2, 1)
    >>> recorder = Recorder(model, [0, 2])
    >>> for i in range(3):
    ...     recorder.step(i)
    >>> recorder.recorded
    [0, 2]
    """

    def __init__(self, model: nn.Module, steps: Iterable[int], *, path: str | os.PathLike[str] | None = None) -> None:
        self.model, self.steps = model, sorted(set(steps))
        if not self.steps or self.steps[0] < 0:
            raise InvalidArgument(f"steps={self.steps}: choose at least one step, 0 or later")
        self.path = None if path is None else Path(path)
        self._kept: dict[int, dict[str, Tensor]] = {}
        if self.path is not None:
            taken = [self._file(step) for step in self.steps if self._file(step).exists()]
            if taken:
                raise RunConflict(f"{taken[0]} exists: choose another path, or remove the earlier recording")
            self.path.mkdir(parents=True, exist_ok=True)

    @property
    def recorded(self) -> list[int]:
        """The steps kept so far."""
        return sorted(self._kept) if self.path is None else [step for step in self.steps if self._file(step).exists()]

    def step(self, i: int) -> None:
        """Record if ``i`` is one of the chosen steps."""
        if i not in self.steps:
            return
        # safetensors refuses tensors that share memory; a tied parameter is stored under each of its names
        state = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
        if self.path is None:
            self._kept[i] = state
            return
        draft = self._file(i).with_suffix(".partial")
        save_file(state, draft)
        draft.rename(self._file(i))

    def state(self, i: int) -> dict[str, Tensor]:
        """The ``state_dict`` recorded at step i.

        Raises:
            RunNotFound: it was not recorded.
        """
        if i not in self.recorded:
            raise RunNotFound(f"step {i} was not recorded; there are {self.recorded}")
        return self._kept[i] if self.path is None else load_file(self._file(i))

    def load(self, i: int, model: nn.Module) -> nn.Module:
        """Put the parameters and buffers of step i into ``model`` and return it."""
        with torch.no_grad():
            model.load_state_dict(self.state(i))
        return model

    def _file(self, step: int) -> Path:
        if self.path is None:
            raise InvalidArgument("this recorder keeps its steps in memory")
        return self.path / f"step_{step:06d}.safetensors"
