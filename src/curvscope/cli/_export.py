"""``curvscope export``: eigenpairs for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curvscope.cli._names import FORMATS, RunFolder
from curvscope.errors import InvalidArgument

ENDINGS = {"hdf5": "h5", "safetensors": "safetensors", "npz": "npz", "csv": "csv"}
SUFFIXES = {".h5": "hdf5", ".hdf5": "hdf5", ".safetensors": "safetensors", ".npz": "npz", ".csv": "csv"}


def command(
    run: RunFolder,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="File to write; its ending names the format. The same as --out.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--format", help=f"One of {FORMATS}, or csv for the eigenvalues alone; default: by the ending."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; default: eigenpairs.* in the run.")] = None,
) -> None:
    """Write eigenvalues, residuals and eigenvectors as HDF5, safetensors or a NumPy archive: x.h5, x.safetensors, x.npz.

    RUN may also be what Solution.save wrote in Python.
    """
    from curvscope.runs import pairs_at
    from curvscope.solvers.results import export
    from curvscope.store import check_can_be_made

    if file is not None and out is not None:
        raise InvalidArgument(f"{file} and --out {out}: pass one of them")
    target = file or out
    if kind is None and target is None:
        raise InvalidArgument(
            f"name a file, as in `curvscope export {run} x.npz`, or pass --format: one of {', '.join(ENDINGS)}"
        )
    if kind is None and target is not None:
        if target.suffix.lower() not in SUFFIXES:
            raise InvalidArgument(f"{target}: name a file that ends with one of {', '.join(SUFFIXES)}, or pass --format")
        kind = SUFFIXES[target.suffix.lower()]
    if kind not in ENDINGS:
        raise InvalidArgument(f"--format {kind!r}: choose one of {', '.join(ENDINGS)}")
    solution = pairs_at(run)
    target = target or run / f"eigenpairs.{ENDINGS[kind]}"
    check_can_be_made(target.parent)
    if kind == "csv":
        _write_table(run, target)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        export(solution, target, kind)
    typer.echo(str(target))


def _write_table(run: Path, target: Path) -> None:
    """Write eigenvalue and residual of every pair, one a line."""
    from curvscope.errors import RunConflict
    from curvscope.runs import pairs_at
    from curvscope.store import write_text

    if target.exists():
        raise RunConflict(f"{target} exists: choose another file, or remove it first")
    solution = pairs_at(run)
    pairs = zip(solution.eigenvalues.tolist(), solution.residual_norms.tolist(), strict=True)
    lines = ["i,eigenvalue,residual_norm", *(f"{i},{value!r},{norm!r}" for i, (value, norm) in enumerate(pairs, 1))]
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, "\n".join(lines) + "\n")
