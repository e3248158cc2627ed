"""``curvscope track``: the top eigenpairs along the training of a problem, or of one's own training function."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from curvscope.cli._names import AsJson, DataFolder, ProblemName
from curvscope.cli._output import print_json, terminal
from curvscope.cli._source import check_source
from curvscope.cli._tables import as_rich
from curvscope.errors import InvalidArgument, RunConflict
from curvscope.operators import Objective
from curvscope.operators.remote import load_function
from curvscope.problems import get
from curvscope.report import Table, save_figure, tracked
from curvscope.store import check_can_be_made, write_text
from curvscope.training import Tracker

FILES = ("track.jsonl", "track.png")
SHOWN = ("loss", "largest", "smallest", "gradient_fraction", "overlap_mask", "overlap_previous", "products", "training_steps")


def command(
    problem: ProblemName = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="MODULE:FUNCTION", help="Your training function; it is called with one argument, `watch`."
        ),
    ] = None,
    data: DataFolder = None,
    k: Annotated[int, typer.Option("-k", help="Number of eigenpairs.")] = 10,
    every: Annotated[int, typer.Option("--every", help="Optimizer steps from one check to the next.")] = 100,
    steps: Annotated[int, typer.Option("--steps", help="Where the training of a problem ends.")] = 1000,
    tol: Annotated[float, typer.Option("--tol", help="Of the eigenvalues, relative.")] = 1e-3,
    max_products: Annotated[int | None, typer.Option("--max-products", help="Budget of a check; default 6 k.")] = None,
    density_probes: Annotated[int, typer.Option("--density-probes", help="Probes of a spectral density; 0: none.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for track.jsonl and track.png.")] = None,
    as_json: AsJson = False,
) -> None:
    """Follow the curvature while a network is trained.

    Your training function calls `watch(model, loss, data)` once, with the data that the curvature shall be of, and trains as
    ever: the steps of the first optimizer that holds the model's parameters are counted.
    """
    check_source(problem, target)
    if steps < 1:
        raise InvalidArgument(f"--steps {steps}: choose at least 1, where the training of a problem ends")
    if out is not None:
        check_can_be_made(out)
    taken = [out / name for name in FILES if out is not None and (out / name).exists()]
    if taken:
        raise RunConflict(f"{taken[0]} exists: choose another folder with --out")
    options = {"k": k, "every": every, "tol": tol, "max_products": max_products, "density_probes": density_probes}
    train = partial(_train, name=problem or "", data=data, steps=steps) if target is None else _training_function(target)
    watcher = Watcher(options, None if out is None else partial(_write_lines, out=out))
    try:
        train(watcher)
        tracker = watcher.finish()
    finally:
        watcher.detach()
        if out is not None and watcher.tracker is not None and watcher.tracker.history:
            _write(watcher.tracker, out)  # also what there is of a training that failed
    if as_json:
        print_json({str(step): found for step, found in tracker.history.items()})
        return
    rows = [[str(step), *(_text(found.get(f"curvature/{name}")) for name in SHOWN)] for step, found in tracker.history.items()]
    console = terminal()
    if not console.is_terminal:
        console.width = max(console.width, 120)
    console.print(as_rich(Table(["step", *(name.replace("_", "\n") for name in SHOWN)], rows)))
    if out is not None:
        console.print(f"Written: {out / FILES[0]}, {out / FILES[1]}", highlight=False, soft_wrap=True)


def _training_function(target: str) -> Callable[[Watcher], object]:
    """The user's function, which takes ``watch``.

    Raises:
        InvalidArgument: it cannot be called so.
    """
    function = load_function(target)
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        raise InvalidArgument(
            f"--target {target!r}: it is called as {function.__name__}(watch), which fails: {error}. Pass a function that "
            "trains, with one argument"
        ) from error
    return function


def _write(tracker: Tracker, out: Path) -> None:
    _write_lines(tracker, out)
    save_figure(tracked(tracker.history, tracker.k), out / FILES[1])


def _write_lines(tracker: Tracker, out: Path) -> None:
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
        self.options, self.tracker, self.steps, self.keep = options, None, 0, keep
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


def _train(watch: Watcher, name: str, data: Path | None, steps: int) -> None:
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


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
