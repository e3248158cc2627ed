"""``curvscope overlap RUN``: the run's eigenvectors against a mask of its parameters; or without eigenvectors, on a problem."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curvscope.cli._folders import check_file
from curvscope.cli._groups import grouped
from curvscope.cli._names import MASKS, AsJson, LanczosMemory
from curvscope.cli._output import print_json, terminal
from curvscope.cli._source import SourceOrRun
from curvscope.errors import InvalidArgument

if TYPE_CHECKING:
    from curvscope.operators.base import Operator
    from curvscope.report import Table
    from curvscope.subspaces import OverlapCurve, OverlapEstimate

KINDS = (".csv", ".json", ".png", ".pdf", ".svg")


@dataclass
class Without:
    """Options of an estimate without vectors."""

    k: Annotated[int | None, typer.Option("-k", "--k", help="Without a RUN: the largest k.")] = None
    probes: Annotated[int | None, typer.Option("--probes", help="Without a RUN: random sign vectors; default 10.")] = None
    steps: Annotated[int | None, typer.Option("--steps", help="Without a RUN: Lanczos steps for each; default 100.")] = None
    eigenvalues: Annotated[
        Path | None, typer.Option("--eigenvalues", help="Without a RUN: a run whose eigenvalues set the thresholds.")
    ] = None
    memory: LanczosMemory = None
    planned: Annotated[bool, typer.Option("--plan", help="Without a RUN: say what it would take, and stop.")] = False


@grouped
def command(
    source: SourceOrRun,
    other: Annotated[
        Path | None, typer.Argument(metavar="RUN2", help="Another run: the overlap of both eigenspaces, for every k.")
    ] = None,
    *,
    mask: Annotated[
        str, typer.Option("--mask", help=f"One of {MASKS}, or a file: .npy, .npz, .safetensors, .pt.")
    ] = "magnitude",
    without: Without,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File for the curve: .csv, .json, or a figure (.png, .pdf, .svg).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Overlap of the top-k eigenspace with the top-k mask, for every k, beside chance.

    With a RUN, from its eigenvectors; with RUN and RUN2, of their eigenspaces. With your function or a problem and -k, without
    any eigenvector: masked Lanczos quadrature, memory O(D), an estimate with its standard error for the mask by magnitude.
    """
    if out is not None:
        check_file(out, KINDS)
    if source.run is None:
        if without.k is None or mask != "magnitude" or other is not None:
            raise InvalidArgument(
                "without a RUN pass -k, the largest k, and leave --mask out: magnitude is the one there is; curvscope "
                "eigs makes a RUN"
            )
        found: OverlapCurve | None = _without_vectors(source, without, as_json)
    else:
        if without != Without() or source.device is not None:
            raise InvalidArgument(
                "a RUN has its eigenvectors, for every k: leave -k, --probes, --steps, --eigenvalues, --memory, --device and "
                "--plan out, or the RUN for an estimate without eigenvectors"
            )
        found = _of_run(source.run, other, mask, as_json)
    if out is not None and found is not None:
        _write(found, out)
        if not as_json:
            terminal().print(f"Written: {out}", highlight=False, soft_wrap=True)


def _of_run(run: Path, other: Path | None, mask: str, as_json: bool) -> OverlapCurve:
    """Print and return the curve of a run's eigenvectors, with a mask or with those of another run."""
    from curvscope.cli._tables import as_rich
    from curvscope.runs import measure_overlap, pairs_at, read_mask
    from curvscope.store import Run, check_can_be_made
    from curvscope.subspaces import overlap

    kept = None
    if other is not None:
        if mask != "magnitude":
            raise InvalidArgument(f"--mask {mask} and {other}: pass one of them")
        curve = overlap(pairs_at(run), pairs_at(other))
    elif mask in MASKS.split(", "):
        opened = Run.open(run)
        check_can_be_made(run)
        curve, kept = measure_overlap(opened, mask), opened.path / f"overlap-{mask}.json"
    elif Path(mask).suffix or Path(mask).exists():
        curve = overlap(pairs_at(run), read_mask(Path(mask)))
    else:
        raise InvalidArgument(f"--mask {mask!r}: choose one of {MASKS}, or name a file (.npy, .npz, .safetensors, .pt)")
    if as_json:
        print_json(curve.to_dict())
        return curve
    console = terminal()
    if other is not None:
        console.print(f"Overlap of the eigenspaces of {run} and {other}", highlight=False, soft_wrap=True)
    console.print(as_rich(_table(curve)))
    if kept is not None:
        console.print(f"Every k is in {kept}", highlight=False, soft_wrap=True)
    return curve


def _write(curve: OverlapCurve, out: Path) -> None:
    """Write a curve: every k with overlap and chance, or a figure."""
    import csv
    import io
    import json

    from matplotlib.figure import Figure

    from curvscope.report import save_figure
    from curvscope.store import write_text

    out.parent.mkdir(parents=True, exist_ok=True)
    plain = curve.to_dict()
    match out.suffix.lower():
        case ".json":
            write_text(out, json.dumps(plain))
        case ".csv":
            columns: dict[str, Any] = {name: numbers for name, numbers in plain.items() if isinstance(numbers, list)}
            text = io.StringIO(newline="")
            csv.writer(text).writerows([list(columns), *zip(*columns.values(), strict=True)])
            write_text(out, text.getvalue())
        case _:
            figure = Figure()
            axes = curve.plot(figure.subplots())
            axes.legend()
            save_figure(figure, out)


def _without_vectors(source: SourceOrRun, asked: Without, as_json: bool) -> OverlapEstimate | None:
    """Print and return an estimate without eigenvectors; None where a plan alone was asked for."""
    from curvscope.cli._measured import measured
    from curvscope.cli._tables import as_rich
    from curvscope.runs import solution_of
    from curvscope.store import Run
    from curvscope.subspaces import masks, overlap_without_vectors, plan_without_vectors

    operator: Operator = measured(source)[0]
    if (objective := operator.objective) is None:
        raise InvalidArgument("a mask by magnitude needs parameters: --target must return (model, loss, data)")
    num_probes, num_steps = 10 if asked.probes is None else asked.probes, 100 if asked.steps is None else asked.steps
    options: dict[str, Any] = {"num_probes": num_probes, "num_steps": num_steps, "memory": asked.memory}
    if asked.planned:
        plan = plan_without_vectors(operator, known_eigenvalues=asked.eigenvalues is not None, **options)
        if as_json:
            print_json(vars(plan))
        else:
            typer.echo(str(plan))
        return None
    eigenvalues = None if asked.eigenvalues is None else solution_of(Run.open(asked.eigenvalues))
    k = asked.k or 0
    largest = masks.largest(objective.parameters.join(objective.values), k)
    found = overlap_without_vectors(operator, largest, k, eigenvalues=eigenvalues, **options)
    if as_json:
        print_json(found.to_dict())
        return found
    terminal().print(as_rich(_estimates(found)))
    typer.echo(f"{found.products} products. Where 'half the steps' differs by more than the errors, take more --steps.")
    return found


def _table(curve: OverlapCurve) -> Table:
    from curvscope.report import Table

    heads, rows = ["k", "overlap", "chance", "ratio"], []
    for k in _shown(len(curve.k)):
        rows.append([str(k), f"{curve.at(k):.3e}", f"{float(curve.chance[k - 1]):.3e}", f"{float(curve.ratio[k - 1]):.2f}"])
        if curve.lower is not None and curve.upper is not None:
            rows[-1] += [f"{float(curve.lower[k - 1]):.3e}", f"{float(curve.upper[k - 1]):.3e}"]
        if curve.sampling_lower is not None and curve.sampling_upper is not None:
            rows[-1] += [f"{float(curve.sampling_lower[k - 1]):.3e}", f"{float(curve.sampling_upper[k - 1]):.3e}"]
    heads += [] if curve.lower is None else ["certified\nlower", "certified\nupper"]
    heads += [] if curve.sampling_lower is None else ["sampling\nlower", "sampling\nupper"]
    return Table(heads, rows)


def _estimates(found: OverlapEstimate) -> Table:
    import torch

    from curvscope.report import Table

    parts = (found.value, found.stderr, found.coarse, found.chance, found.thresholds)
    columns = torch.stack([part for part in parts if part is not None])
    rows = [
        [str(k), *(f"{float(x):.3e}" for x in columns[:, k - 1]), f"{float(found.ratio[k - 1]):.2f}"]
        for k in _shown(len(found))
    ]
    heads = ["k", "overlap", "standard\nerror", "half the\nsteps", "chance", "threshold", "ratio"]
    return Table(heads, rows)


def _shown(most: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... and the last."""
    steps = [m * 10**e for e in range(7) for m in (1, 2, 5)]
    return [k for k in steps if k < most] + [most]
