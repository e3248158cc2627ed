"""Parameters at chosen steps of training, as safetensors files; with what is needed to train on from there, where asked."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument, RunConflict, RunNotFound
from curvscope.store import read_sealed_tensors, write_tensors
from curvscope.system import checked
from curvscope.training._state import TrainingState, capture, check_optimizer, load_state, restore, save_state


class Recorder:
    """Keeps a model's parameters and buffers at chosen steps; call :meth:`step` before each update.

    "Step s" are the parameters before update s, so step 0 is the initialisation. :mod:`.callbacks` calls it from Lightning and
    from the Hugging Face Trainer.

    Args:
        model: whose ``state_dict`` is recorded.
        steps: which steps to keep, such as ``range(0, 1001, 100)``.
        path: directory for one safetensors file a step, ``step_000100.safetensors``; None keeps copies in memory.
        optimizer: its state is kept as well, to train on from a recorded step; see :meth:`restore`.
        random_state: likewise the states of PyTorch's, NumPy's and Python's global random generators.
        gradients: keep ``parameter.grad`` as well, as it is when :meth:`step` is called: call it between ``backward`` and the
            update. See :meth:`gradient`.
        resume: continue an earlier recording in ``path``: steps that are there stay as they are, and are not written again.

    Raises:
        InvalidArgument: no steps, negative ones, or other than whole numbers. RunConflict: ``path`` already holds one of these
            steps, without ``resume``.

    >>> model = nn.Linear(2, 1)
    >>> recorder = Recorder(model, [0, 2])
    >>> for i in range(3):
    ...     recorder.step(i)
    >>> recorder.recorded
    [0, 2]
    """

    @checked
    def __init__(
        self,
        model: nn.Module,
        steps: Iterable[int],
        *,
        path: str | os.PathLike[str] | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        random_state: bool = False,
        gradients: bool = False,
        resume: bool = False,
    ) -> None:
        asked = list(steps)
        if strange := [step for step in asked if not hasattr(step, "__index__")]:
            raise InvalidArgument(f"step {strange[0]!r} is no whole number: steps are counted, such as range(0, 1001, 100)")
        self.model, self.steps = model, sorted({int(step) for step in asked})
        if not self.steps or self.steps[0] < 0:
            raise InvalidArgument(f"steps={self.steps}: choose at least one step, 0 or later")
        self.path = None if path is None else Path(path)
        self.optimizer, self.random_state, self.gradients = optimizer, random_state, gradients
        self._gradients: dict[int, dict[str, Tensor]] = {}
        self._wanted = frozenset(self.steps)
        self._kept: dict[int, dict[str, Tensor]] = {}
        self._states: dict[int, TrainingState] = {}
        if self.path is None and resume:
            raise InvalidArgument("resume=True needs the path of an earlier recording")
        if self.path is not None:
            taken = [self._file(step) for step in self.steps if self._file(step).exists()]
            if taken and not resume:
                raise RunConflict(f"{taken[0]} exists: pass resume=True, choose another path, or remove the earlier recording")
            self.path.mkdir(parents=True, exist_ok=True)

    @property
    def recorded(self) -> list[int]:
        """The steps kept so far."""
        return sorted(self._kept) if self.path is None else [step for step in self.steps if self._file(step).exists()]

    @property
    def resumable(self) -> list[int]:
        """The steps kept so far together with the state of optimizer and random generators."""
        return sorted(self._states) if self.path is None else [i for i in self.recorded if self._state_file(i).exists()]

    @checked
    def step(self, i: int) -> None:
        """Record if ``i`` is one of the chosen steps and not there yet."""
        if i not in self._wanted or (i in self._kept if self.path is None else self._file(i).exists()):
            return
        # safetensors refuses tensors that share memory; a tied parameter is stored under each of its names
        parameters = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
        extra = None
        if self.optimizer is not None or self.random_state:
            extra = capture(self.optimizer, random_state=self.random_state)
        if self.gradients:
            self._keep_gradients(i)
        if self.path is None:
            self._kept[i] = parameters
            if extra is not None:
                self._states[i] = extra
            return
        if extra is not None:  # before the parameters: a step that is there is there with everything
            save_state(extra, self._state_file(i))
        write_tensors(self._file(i), parameters)

    @checked
    def state(self, i: int) -> dict[str, Tensor]:
        """The ``state_dict`` recorded at step i.

        Raises:
            RunNotFound: it was not recorded.
        """
        if i not in self.recorded:
            raise RunNotFound(f"step {i} was not recorded; there are {self.recorded}")
        return self._kept[i] if self.path is None else read_sealed_tensors(self._file(i))

    def _keep_gradients(self, i: int) -> None:
        found = {name: p.grad.detach().cpu().clone() for name, p in self.model.named_parameters() if p.grad is not None}
        if not found:
            raise InvalidArgument(f"no parameter has a gradient at step {i}: call step() between backward() and the update")
        if self.path is None:
            self._gradients[i] = found
        else:  # before the parameters, as the state of the optimizer
            write_tensors(self._gradient_file(i), found)

    @checked
    def gradient(self, i: int) -> dict[str, Tensor]:
        """The gradients recorded at step i, by parameter name.

        Raises:
            RunNotFound: there are none: record with ``gradients=True``.
        """
        if i in self._gradients:
            return self._gradients[i]
        if self.path is None or not self._gradient_file(i).exists():
            raise RunNotFound(f"step {i} has no gradients: record with gradients=True, between backward() and the update")
        return read_sealed_tensors(self._gradient_file(i))

    @checked
    def load(self, i: int, model: nn.Module) -> nn.Module:
        """Put the parameters and buffers of step i into ``model`` and return it."""
        with torch.no_grad():
            model.load_state_dict(self.state(i))
        return model

    @checked
    def restore(self, i: int) -> None:
        """Put model, optimizer and random generators back to step i: training continues as if it had not been interrupted.

        Raises:
            RunNotFound: the step was not recorded, or without the state of optimizer and generators. InvalidArgument: another
                kind of optimizer was recorded.
        """
        if i not in self.resumable:
            raise RunNotFound(
                f"step {i} has no training state; there are {self.resumable}: record with optimizer=... or random_state=True"
            )
        extra = self._states[i] if self.path is None else load_state(self._state_file(i))
        check_optimizer(extra, self.optimizer)
        self.load(i, self.model)
        restore(extra, self.optimizer)

    def _file(self, step: int) -> Path:
        if self.path is None:
            raise InvalidArgument("this recorder keeps its steps in memory")
        return self.path / f"step_{step:06d}.safetensors"

    def _gradient_file(self, step: int) -> Path:
        return self._file(step).with_name(f"gradient_{step:06d}.safetensors")

    def _state_file(self, step: int) -> Path:
        return self._file(step).with_suffix(".state.pt")
