"""``curvscope overlap RUN``: the run's eigenvectors against a mask of its parameters."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from curvscope.cli.names import AsJson, RunFolder
from curvscope.cli.tables import as_rich
from curvscope.errors import InvalidArgument
from curvscope.execution.run import Run
from curvscope.report import Table
from curvscope.studies.eigs import MASKS, measure_overlap
from curvscope.subspaces import OverlapCurve


def command(
    run: RunFolder,
    mask: Annotated[str, typer.Option("--mask", help=f"One of {', '.join(MASKS)}.")] = "magnitude",
    as_json: AsJson = False,
) -> None:
    """Overlap of the top-k eigenspace with the top-k mask, for every k, beside chance."""
    if mask not in MASKS:
        raise InvalidArgument(f"--mask {mask!r}: choose one of {', '.join(MASKS)}")
    opened = Run.open(run)
    curve = measure_overlap(opened, mask)
    if as_json:
        typer.echo(json.dumps(curve.to_dict()))
        return
    console = Console()
    console.print(as_rich(_table(curve)))
    console.print(f"Every k is in {opened.path / f'overlap-{mask}.json'}", highlight=False, soft_wrap=True)


def _table(curve: OverlapCurve) -> Table:
    heads, rows = ["k", "overlap", "chance", "ratio"], []
    for k in _shown(len(curve.k)):
        rows.append([str(k), f"{curve.at(k):.3e}", f"{k / curve.size:.3e}", f"{float(curve.ratio[k - 1]):.2f}"])
        if curve.lower is not None and curve.upper is not None:
            rows[-1] += [f"{float(curve.lower[k - 1]):.3e}", f"{float(curve.upper[k - 1]):.3e}"]
    return Table(heads if curve.lower is None else [*heads, "certified\nlower", "certified\nupper"], rows)


def _shown(most: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... and the last."""
    steps = [m * 10**e for e in range(7) for m in (1, 2, 5)]
    return [k for k in steps if k < most] + [most]
