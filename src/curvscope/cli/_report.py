"""``curvscope report RUN``: a run as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curvscope.cli._folders import check_file
from curvscope.cli._names import RunFolder
from curvscope.errors import InvalidArgument, RunConflict

PAGE = "report.html"


def command(
    run: RunFolder,
    other: Annotated[Path | None, typer.Argument(hidden=True)] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="HTML file to write instead, alone: its figures are inside.")
    ] = None,
) -> None:
    """Write report.html and its figures into a run: overlap, spectrum, density, residuals, all pairs, how it was made."""
    if other is not None:
        raise InvalidArgument(
            f"a page is of one run: curvscope compare {run} {other} shows both, curvscope overlap their spaces"
        )
    from curvscope.report import render, save_figures
    from curvscope.runs import document
    from curvscope.store import Run, check_can_be_made, write_text

    opened = Run.open(run)
    if out is None:
        check_can_be_made(run)
    else:
        check_file(out, (".html", ".htm"))
    if opened.manifest["kind"] != "eigs":
        raise RunConflict(f"{run} is a {opened.manifest['kind']} run, whose page was written with it: open {run / PAGE}")
    made = document(opened)
    if out is None:
        save_figures(made, opened.path / "figures")
        out = opened.write_text(PAGE, render(made))
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, render(made))
    typer.echo(f"Report: {out}")
