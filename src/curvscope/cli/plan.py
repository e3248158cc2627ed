"""``curvscope plan``: what a solve would take, before it is begun."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from curvscope.cli.names import AsJson, DataFolder, Matrix, Memory, ProblemName, Split, TargetName
from curvscope.cli.source import check_source
from curvscope.errors import InvalidArgument
from curvscope.operators import load_target
from curvscope.problems import get
from curvscope.solvers import METHODS
from curvscope.solvers.plan import plan
from curvscope.studies.eigs import MATRICES


def command(
    k: Annotated[int, typer.Option("-k", help="Number of eigenpairs.")],
    problem: ProblemName = None,
    target: TargetName = None,
    data: DataFolder = None,
    split: Split = "train",
    matrix: Matrix = "hessian",
    method: Annotated[str, typer.Option("--method", help=f"One of {', '.join(METHODS)}.")] = "auto",
    tol: Annotated[float, typer.Option("--tol", help="Residual wanted, relative to |eigenvalue|.")] = 1e-3,
    max_products: Annotated[int | None, typer.Option("--max-products", help="Budget of products.")] = None,
    memory: Memory = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where the run would be: its disk may hold the matrices.")] = None,
    workers: Annotated[int, typer.Option("--workers", help="How many would compute the products.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Products, time, memory and disk that `curvscope eigs` would take, for each method; exit status 1 if none fits.

    A problem's network is planned for at its first step: what a product costs does not depend on the training.
    """
    check_source(problem, target)
    if matrix not in MATRICES:
        raise InvalidArgument(f"--matrix {matrix!r}: choose one of {', '.join(MATRICES)}")
    if problem is None:
        operator = load_target(str(target))
    else:
        known = get(problem, data=data)
        operator = MATRICES[matrix](known.model(), known.criterion, known.curvature_batches(split))
    made = plan(operator, k, method=method, tol=tol, max_products=max_products, memory=memory, run=out, workers=workers)
    if as_json:
        typer.echo(json.dumps(made.to_dict()))
    else:
        Console().print(str(made), highlight=False, soft_wrap=True)
    if not made.chosen:
        raise typer.Exit(1)
