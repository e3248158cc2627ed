"""``curvscope train``: train a problem, and record its parameters along the way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from curvscope.cli._groups import grouped
from curvscope.cli._names import AsJson, DataFolder, Device, ProblemName
from curvscope.cli._output import print_json, terminal
from curvscope.errors import InvalidArgument


@dataclass(frozen=True)
class Steps:
    """Options of the training: those of :func:`curvscope.training.train_recorded`."""

    steps: Annotated[int | None, typer.Option("--steps", help="Where training ends; default the problem's last step.")] = None
    every: Annotated[int, typer.Option("--every", help="Steps between two recordings.")] = 100
    seed: Annotated[int | None, typer.Option("--seed", help="Of weights and batches; default the problem's.")] = None


@grouped
def command(
    training: Steps,
    named: Annotated[str | None, typer.Argument(metavar="PROBLEM", help="A problem, which `curvscope info` lists.")] = None,
    *,
    problem: ProblemName = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for step_000100.safetensors and so on.")] = None,
    data: DataFolder = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Train the network of a problem by plain SGD. The same command resumes a training that was interrupted.

    Measure it with `curvscope eigs --problem NAME --checkpoint OUT/step_000100.safetensors`.
    """
    from curvscope.problems import get
    from curvscope.training import train_recorded

    name = problem if named is None else named
    if name is None or (named is not None and problem is not None):
        raise InvalidArgument("name one problem, as in curvscope train mnist16 --out DIR; curvscope info lists them")
    if out is None:
        raise InvalidArgument("--out is missing: name the folder that the parameters are recorded in")
    chosen = get(name, data=data)
    last = chosen.defaults.steps[-1] if training.steps is None else training.steps
    model = chosen.model(training.seed)
    if device is not None:
        model = model.to(device)
    losses = train_recorded(chosen, out, steps=last, every=training.every, seed=training.seed, model=model)
    file = out / f"step_{last:06d}.safetensors"
    if as_json:
        print_json({"step": last, "loss": losses[last], "file": str(file)})
        return
    terminal().print(f"Loss of the batch of step {last}: {losses[last]:.4f}. Written: {file}", highlight=False, soft_wrap=True)
