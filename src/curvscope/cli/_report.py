"""``curvscope report RUN``: a run as one HTML page."""

from __future__ import annotations

import typer

from curvscope.cli._names import RunFolder
from curvscope.errors import RunConflict
from curvscope.report import render, save_figures
from curvscope.runs import document
from curvscope.store import Run, check_can_be_made


def command(run: RunFolder) -> None:
    """Write report.html and its figures into a run: overlap, spectrum, density, residuals, all pairs, how it was made."""
    opened = Run.open(run)
    check_can_be_made(run)
    if opened.manifest["kind"] != "eigs":
        raise RunConflict(
            f"{run} is a {opened.manifest['kind']} run, whose page was written with it: open {run / 'report.html'}"
        )
    made = document(opened)
    save_figures(made, opened.path / "figures")
    typer.echo(f"Report: {opened.write_text('report.html', render(made))}")
