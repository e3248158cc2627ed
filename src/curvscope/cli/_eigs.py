"""``curvscope eigs``: the top eigenpairs of a problem's or of one's own operator, into a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from curvscope.cli._names import AsJson, DataFolder, Matrix, Memory, Precision, ProblemName, Split, Step, TargetName
from curvscope.cli._output import print_json, terminal
from curvscope.cli._source import check_choices, check_problem_options, check_source
from curvscope.cli._trust import remember
from curvscope.cli._workers import PANEL, BatchSystem, ClusterConfig, Hiring, JobCount, SchedulerAddress, WorkerCount
from curvscope.errors import InvalidArgument
from curvscope.measurement import PARAMETERS
from curvscope.operators import Recipe, data_parallel
from curvscope.operators.base import Operator
from curvscope.problems import get
from curvscope.runs import operator_at_step, operator_of_problem, recipe_of_problem, recipe_of_target
from curvscope.solvers import METHODS, Solution, eigsh, plan
from curvscope.solvers.driver import check_request
from curvscope.store import Run
from curvscope.system import as_bytes

FREE = ("k", "tol", "max_products")
"""Options under which a run may be gone on with, other than it was begun."""


def command(
    k: Annotated[int, typer.Option("-k", help="Number of eigenpairs.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the run; one that was interrupted goes on.")],
    problem: ProblemName = None,
    target: TargetName = None,
    data: DataFolder = None,
    step: Step = 0,
    split: Split = "train",
    matrix: Matrix = "hessian",
    precision: Precision = None,
    method: Annotated[str, typer.Option("--method", help=f"One of {', '.join(METHODS)}.")] = "auto",
    which: Annotated[
        str, typer.Option("--which", help="LM: largest magnitude; LA: largest; SA: most negative; BE: both ends.")
    ] = "LM",
    tol: Annotated[float, typer.Option("--tol", help="Residual wanted, relative to |eigenvalue|.")] = 1e-3,
    max_products: Annotated[int | None, typer.Option("--max-products", help="Budget of products.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the random start.")] = 0,
    memory: Memory = None,
    planned: Annotated[bool, typer.Option("--plan", help="Plan first; the report then compares plan and fact.")] = False,
    workers: WorkerCount = None,
    scheduler: SchedulerAddress = None,
    cluster: BatchSystem = None,
    jobs: JobCount = None,
    cluster_config: ClusterConfig = None,
    shards: Annotated[
        int | None,
        typer.Option(
            "--shards",
            rich_help_panel=PANEL,
            help="Spread the data over the workers: FUNCTION takes shard=0, 1, ... and num_shards=.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Top eigenpairs, each with its residual; exit status 1 if not all of them converged.

    Everything is kept in the folder as it comes: killed or stopped with Ctrl-C, the same command goes on. With another -k,
    --tol or --max-products it goes on from what it has, also with other workers or with none.
    """
    check_source(problem, target)
    check_problem_options(problem, data=data, split=split, step=step)
    check_choices(matrix, precision)
    wanted = {"k": k, "which": which, "method": method, "tol": tol}
    source = {
        "problem": problem,
        "target": target,
        "data": None if data is None else str(data),
        "step": step,
        "split": split,
        "matrix": matrix,
    }
    if precision is not None:
        source["precision"] = precision
    options = {**wanted, "max_products": max_products, "seed": seed}
    if memory is not None:
        as_bytes(memory)
    hiring = Hiring(workers, scheduler, cluster, jobs, cluster_config)
    if shards is not None and (target is None or hiring.nobody):
        raise InvalidArgument("--shards is for --target, with --workers, --scheduler or --cluster to hold them")
    run = Run.resume(out, kind="eigs", options=source | options, free=FREE)
    operator = _operator(out, source, wanted) if shards is None else None
    remember(run)
    with hiring.executor() as executor:
        if operator is None:
            operator, executor = data_parallel(_recipe(source), shards, executor), None
        if planned and "plan" not in run.manifest:
            count = 1 if executor is None else executor.expected
            made = plan(operator, k, method=method, tol=tol, max_products=max_products, memory=memory, run=out, workers=count)
            run.manifest["plan"] = made.to_dict()
            if not as_json:
                terminal().print(str(made), highlight=False, soft_wrap=True)
        solution = eigsh(operator, **options, memory=memory, run=run, executor=executor)
    if as_json:
        print_json(_plain(out, solution))
    else:
        console = terminal()
        console.print(str(solution), highlight=False, soft_wrap=True)
        first = f"curvscope certify {out}; then " if which == "LM" else "curvscope "  # certificates are for LM
        console.print(f"Run: {out}. Next: {first}overlap, density or report with it", highlight=False, soft_wrap=True)
    if solution.status.code == "partly":
        raise typer.Exit(1)


def _operator(out: Path, source: dict[str, Any], wanted: dict[str, Any]) -> Operator:
    """The operator that was asked for: at the parameters that the run has, else at newly trained ones."""
    if source["problem"] is None:
        return _recipe(source).build()
    if (out / PARAMETERS).exists():
        return operator_of_problem(Run.open(out))
    known = get(source["problem"], data=source["data"])
    check_request(size=sum(p.numel() for p in known.model().parameters()), **wanted)  # before the training
    operator = operator_at_step(known, source["step"], source["split"], source["matrix"], source.get("precision"))
    operator.recipe = recipe_of_problem(out, source)
    return operator


def _recipe(source: dict[str, Any]) -> Recipe:
    return recipe_of_target(source["target"], source["matrix"], source.get("precision"))


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
