"""``curvscope export``: a run's eigenpairs for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curvscope.cli._names import RunFolder
from curvscope.runs import solution_of
from curvscope.solvers.results import WRITERS, export
from curvscope.store import Run, check_can_be_made

ENDINGS = {"hdf5": "h5", "safetensors": "safetensors", "npz": "npz"}


def command(
    run: RunFolder,
    kind: Annotated[str, typer.Option("--format", help=f"One of {', '.join(WRITERS)}.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; default: eigenpairs.* in the run.")] = None,
) -> None:
    """Write a run's eigenvalues, residuals and eigenvectors as HDF5, safetensors or a NumPy archive."""
    opened = Run.open(run)
    target = out or opened.path / f"eigenpairs.{ENDINGS.get(kind, kind)}"
    check_can_be_made(target.parent)
    export(solution_of(opened), target, kind)
    typer.echo(str(target))
