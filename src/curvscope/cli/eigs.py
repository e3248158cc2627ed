"""``curvscope eigs``: the top eigenpairs of a problem's or of one's own operator, into a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from curvscope.cli.names import AsJson, DataFolder, ProblemName, TargetName
from curvscope.cli.target import load_target
from curvscope.errors import InvalidArgument
from curvscope.execution.run import Run, check_free
from curvscope.problems import get
from curvscope.solvers import METHODS, Solution, eigsh
from curvscope.solvers.checks import check_request
from curvscope.studies.eigs import MATRICES, operator_at_step, record


def command(
    k: Annotated[int, typer.Option("-k", help="Number of eigenpairs.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the run.")],
    problem: ProblemName = None,
    target: TargetName = None,
    data: DataFolder = None,
    step: Annotated[int, typer.Option("--step", help="Train the problem's network to this step first.")] = 0,
    split: Annotated[str, typer.Option("--split", help="Curvature on 'train' or 'test' samples of the problem.")] = "train",
    matrix: Annotated[str, typer.Option("--matrix", help="'hessian' or 'ggn', for a problem.")] = "hessian",
    method: Annotated[str, typer.Option("--method", help=f"One of {', '.join(METHODS)}.")] = "auto",
    which: Annotated[str, typer.Option("--which", help="LM, LA, SA or BE.")] = "LM",
    tol: Annotated[float, typer.Option("--tol", help="Residual wanted, relative to |eigenvalue|.")] = 1e-3,
    max_products: Annotated[int | None, typer.Option("--max-products", help="Budget of products.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the random start.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Top eigenpairs, each with its residual; exit status 1 if not all of them converged."""
    if (problem is None) == (target is None):
        raise InvalidArgument("pass either --problem NAME or --target MODULE:FUNCTION")
    if matrix not in MATRICES:
        raise InvalidArgument(f"--matrix {matrix!r}: choose one of {', '.join(MATRICES)}")
    check_free(out)
    wanted = {"k": k, "which": which, "method": method, "tol": tol}
    if problem is None:
        operator = load_target(str(target))
    else:
        known = get(problem, data=data)
        check_request(size=sum(p.numel() for p in known.model().parameters()), **wanted)  # before the training
        operator = operator_at_step(known, step, split, matrix)
    options = {**wanted, "max_products": max_products, "seed": seed}
    solution = eigsh(operator, **options)
    source = {
        "problem": problem,
        "target": target,
        "data": None if data is None else str(data),
        "step": step,
        "split": split,
        "matrix": matrix,
    }
    run = Run.create(out, kind="eigs", options={**source, **options})
    record(run, solution, operator)
    if as_json:
        typer.echo(json.dumps(_plain(out, solution)))
    else:
        console = Console()
        console.print(str(solution), highlight=False, soft_wrap=True)
        console.print(f"Run: {out}. Next: curvscope overlap {out}; curvscope report {out}", highlight=False, soft_wrap=True)
    if solution.status.code == "partly":
        raise typer.Exit(1)


def _plain(out: Path, solution: Solution) -> dict[str, object]:
    return {
        "run": str(out),
        "status": solution.status.code,
        "advice": solution.status.text,
        "eigenvalues": solution.eigenvalues.tolist(),
        "residual_norms": solution.residual_norms.tolist(),
        "products": solution.cost.products,
        "seconds": solution.cost.seconds,
    }
