"""Object that a training function calls to have its model tracked, and what is written of it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from curvscope.errors import CurvscopeError, InvalidArgument, TargetNotFound
from curvscope.operators import Objective
from curvscope.operators.remote import load_function, place_of
from curvscope.problems import get
from curvscope.report import save_figure, tracked
from curvscope.store import write_text
from curvscope.training import Tracker

FILES = ("track.jsonl", "track.png")


def training_function(target: str, arguments: dict[str, Any]) -> Callable[[Watcher], object]:
    """The user's function, which takes ``watch``, and ``arguments`` by name.

    Raises:
        InvalidArgument: it cannot be called so.
    """
    function = load_function(target)
    try:
        inspect.signature(function).bind(None, **arguments)
    except TypeError as error:
        given = "".join(f", {name}={value!r}" for name, value in arguments.items())
        raise InvalidArgument(
            f"--target {target!r}: it is called as {function.__name__}(watch{given}), which fails: {error}. Pass a function "
            "that trains, with one argument: def train(watch): ...; watch(model, loss, data); and then the training"
        ) from error
    return partial(_call, function, target, arguments)


def _call(function: Callable[..., object], target: str, arguments: dict[str, Any], watcher: Watcher) -> None:
    """Call the user's training function; its own errors come with file and line."""
    try:
        function(watcher, **arguments)
    except CurvscopeError:
        raise
    except Exception as error:
        told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise TargetNotFound(f"target {target!r}: the training failed{place_of(error)}: {told}") from error


def write(tracker: Tracker, out: Path) -> None:
    """All checks so far, and their figure."""
    write_lines(tracker, out)
    save_figure(tracked(tracker.history, tracker.k), out / FILES[1])


def write_lines(tracker: Tracker, out: Path) -> None:
    """All checks so far, a line each; whole, however the training ends."""
    lines = [json.dumps({"step": step, **found}) for step, found in tracker.history.items()]
    write_text(out / FILES[0], "\n".join(lines) + "\n")


class Watcher:
    """Object passed to a training function: call it with (model, loss, data), then train.

    Args:
        options: of the :class:`.Tracker`.
        keep: called with the tracker after each check.
    """

    def __init__(self, options: dict[str, Any], keep: Callable[[Tracker], None] | None = None) -> None:
        self.options, self.steps, self.keep = options, 0, keep
        self.tracker: Tracker | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._hook: Any = None

    def __call__(self, model: nn.Module, loss: Any, data: Any, **objective: Any) -> Tracker:
        """Track this model from here on; further options are those of :class:`.Objective`."""
        if self.tracker is not None:
            raise InvalidArgument("watch was called twice: track one model at a time")
        self.tracker = Tracker(Objective(model, loss, data, **objective), **self.options)
        ours = {id(parameter) for parameter in model.parameters()}

        def before_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            """Check, before the first optimizer that holds parameters of this model makes a step."""
            held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
            if self._optimizer is None and held & ours:
                self._optimizer = optimizer
            if optimizer is self._optimizer and self.tracker is not None:
                self._check(self.tracker)
                self.steps += 1

        self._hook = register_optimizer_step_pre_hook(before_step)
        return self.tracker

    def finish(self) -> Tracker:
        """The tracker, after the last update was counted in.

        Raises:
            InvalidArgument: nothing was watched, or no optimizer made a step.
        """
        if self.tracker is None:
            raise InvalidArgument(
                "the training function did not call watch(model, loss, data): let it, once, before the training"
            )
        if not self.steps:
            raise InvalidArgument(
                "no torch.optim optimizer with the watched model's parameters made a step: let one update that very model"
            )
        self._check(self.tracker)
        return self.tracker

    def _check(self, tracker: Tracker) -> None:
        before = len(tracker.history)
        tracker.step(self.steps)
        if self.keep is not None and len(tracker.history) > before:
            self.keep(tracker)

    def detach(self) -> None:
        """Count no more steps."""
        if self._hook is not None:
            self._hook.remove()


def train(watch: Watcher, name: str, data: Path | None, steps: int) -> None:
    """Plain SGD on a problem."""
    problem = get(name, data=data)
    model = problem.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=problem.defaults.learning_rate)
    watch(model, problem.criterion, problem.curvature_batches("train"))
    for step, (x, y) in enumerate(problem.train_batches()):
        if step == steps:
            return
        optimizer.zero_grad()
        problem.criterion(model(x), y).backward()
        optimizer.step()
