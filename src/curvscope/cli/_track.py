"""``curvscope track``: the top eigenpairs along the training of a problem, or of one's own training function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from curvscope.cli._groups import grouped
from curvscope.cli._names import AsJson
from curvscope.cli._output import print_json, terminal
from curvscope.cli._source import Training
from curvscope.errors import InvalidArgument, RunConflict

FILES = ("track.jsonl", "track.png")
SHOWN = ("loss", "largest", "smallest", "gradient_fraction", "overlap_mask", "overlap_previous", "products", "training_steps")


@dataclass(frozen=True)
class Checks:
    """Options of the checks: those of :class:`curvscope.Tracker`."""

    k: Annotated[int, typer.Option("-k", "--k", help="Number of eigenpairs.")] = 10
    every: Annotated[int, typer.Option("--every", help="Optimizer steps from one check to the next.")] = 100
    tol: Annotated[float, typer.Option("--tol", help="Of the eigenvalues, relative.")] = 1e-3
    max_products: Annotated[int | None, typer.Option("--max-products", help="Budget of a check; default 6 k.")] = None
    density_probes: Annotated[int, typer.Option("--density-probes", help="Probes of a spectral density; 0: none.")] = 0


@grouped
def command(
    source: Training,
    checks: Checks,
    *,
    steps: Annotated[int | None, typer.Option("--steps", help="Of a problem: where its training ends; default 1000.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for track.jsonl and track.png.")] = None,
    as_json: AsJson = False,
) -> None:
    """Follow the curvature while a network is trained.

    Your training function calls `watch(model, loss, data)` once, with the data that the curvature shall be of, and trains as
    ever: the steps of the first optimizer that holds the model's parameters are counted.
    """
    from curvscope.cli import _watcher as watching
    from curvscope.cli._tables import as_rich
    from curvscope.report import Table
    from curvscope.store import check_can_be_made

    if steps is not None and source.target is not None:
        raise InvalidArgument(f"--steps {steps} is for a --problem: your training function decides by itself")
    if steps is not None and steps < 1:
        raise InvalidArgument(f"--steps {steps}: choose at least 1, where the training of a problem ends")
    if out is not None:
        check_can_be_made(out)
    taken = [out / name for name in FILES if out is not None and (out / name).exists()]
    if taken:
        raise RunConflict(f"{taken[0]} exists: choose another folder with --out")
    options = asdict(checks)
    train: Callable[[watching.Watcher], object]
    if source.target is None:
        train = partial(watching.train, name=source.problem or "", data=source.data, steps=1000 if steps is None else steps)
    else:
        train = watching.training_function(source.target, source.given)
    watcher = watching.Watcher(options, None if out is None else partial(watching.write_lines, out=out))
    try:
        train(watcher)
        tracker = watcher.finish()
    finally:
        watcher.detach()
        if out is not None and watcher.tracker is not None and watcher.tracker.history:
            watching.write(watcher.tracker, out)  # also what there is of a training that failed
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


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
