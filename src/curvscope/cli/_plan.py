"""``curvscope plan``: what a solve would take, before it is begun."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from curvscope.cli._groups import grouped
from curvscope.cli._names import SOLVERS, AsJson, Memory
from curvscope.cli._output import print_json, terminal
from curvscope.cli._source import Source


@dataclass(frozen=True)
class Request:
    """Options of the solve that is planned: those of :func:`curvscope.plan`."""

    k: Annotated[int, typer.Option("-k", "--k", help="Number of eigenpairs.")] = 10
    method: Annotated[str, typer.Option("--method", help=f"One of {SOLVERS}.")] = "auto"
    tol: Annotated[float, typer.Option("--tol", help="Residual wanted, relative to |eigenvalue|.")] = 1e-3
    max_products: Annotated[int | None, typer.Option("--max-products", help="Budget of products.")] = None
    memory: Memory = None
    workers: Annotated[int, typer.Option("--workers", help="How many would compute the products.")] = 1


@grouped
def command(
    source: Source,
    request: Request,
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where the run would be: its disk may hold the matrices.")
    ] = None,
    spectrum: Annotated[
        Path | None,
        typer.Option("--spectrum", help="Run of like eigenvalues (another step of the training): tells krylov's products."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Products, time, memory and disk that `curvscope eigs` would take, for each method; exit status 1 if none fits.

    A problem's network is planned for at its first step: what a product costs does not depend on the training.
    """
    from curvscope.cli._measured import untrained
    from curvscope.runs import solution_of
    from curvscope.solvers import plan
    from curvscope.store import Run, check_can_be_made, usable_path

    if out is not None:
        check_can_be_made(usable_path(out))
    known = None if spectrum is None else solution_of(Run.open(spectrum))
    options: dict[str, Any] = asdict(request)
    made = plan(untrained(source), **options, run=out, spectrum=known)
    if as_json:
        print_json(made.to_dict())
    else:
        terminal().print(str(made), highlight=False, soft_wrap=True)
    if not made.chosen:
        raise typer.Exit(1)
