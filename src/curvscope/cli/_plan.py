"""``curvscope plan``: what a solve would take, before it is begun."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curvscope.cli._names import AsJson, DataFolder, Matrix, Memory, Precision, ProblemName, Split, TargetName
from curvscope.cli._output import print_json, terminal
from curvscope.cli._source import check_choices, check_problem_options, check_source
from curvscope.problems import get
from curvscope.runs import arithmetic_of, matrix_of, recipe_of_target, solution_of
from curvscope.solvers import METHODS, plan
from curvscope.store import Run, check_can_be_made, usable_path
from curvscope.system import preferred


def command(
    k: Annotated[int, typer.Option("-k", help="Number of eigenpairs.")],
    problem: ProblemName = None,
    target: TargetName = None,
    data: DataFolder = None,
    split: Split = "train",
    matrix: Matrix = "hessian",
    precision: Precision = None,
    method: Annotated[str, typer.Option("--method", help=f"One of {', '.join(METHODS)}.")] = "auto",
    tol: Annotated[float, typer.Option("--tol", help="Residual wanted, relative to |eigenvalue|.")] = 1e-3,
    max_products: Annotated[int | None, typer.Option("--max-products", help="Budget of products.")] = None,
    memory: Memory = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where the run would be: its disk may hold the matrices.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", help="How many would compute the products.")] = 1,
    spectrum: Annotated[
        Path | None,
        typer.Option("--spectrum", help="Run of like eigenvalues (another step of the training): tells krylov's products."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Products, time, memory and disk that `curvscope eigs` would take, for each method; exit status 1 if none fits.

    A problem's network is planned for at its first step: what a product costs does not depend on the training.
    """
    check_source(problem, target)
    check_problem_options(problem, data=data, split=split)
    check_choices(matrix, precision)
    if out is not None:
        check_can_be_made(usable_path(out))
    earlier = None if spectrum is None else solution_of(Run.open(spectrum))
    if problem is None:
        operator = recipe_of_target(str(target), matrix, precision).build()
    else:
        known, arithmetic = get(problem, data=data), arithmetic_of(precision)
        model = known.model().to(preferred())
        operator = matrix_of(matrix)(model, known.criterion, known.curvature_batches(split), **arithmetic)
    made = plan(
        operator,
        k,
        method=method,
        tol=tol,
        max_products=max_products,
        memory=memory,
        run=out,
        workers=workers,
        spectrum=earlier,
    )
    if as_json:
        print_json(made.to_dict())
    else:
        terminal().print(str(made), highlight=False, soft_wrap=True)
    if not made.chosen:
        raise typer.Exit(1)
