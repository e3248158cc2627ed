"""``curvscope eigs``: the top eigenpairs of a problem's or of one's own operator, into a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curvscope.cli._folders import check_removable, free_folder
from curvscope.cli._groups import grouped
from curvscope.cli._hints import in_options
from curvscope.cli._names import SOLVERS, AsJson, Memory
from curvscope.cli._output import print_json, terminal
from curvscope.cli._source import Source
from curvscope.cli._workers import PANEL, WorkerOptions
from curvscope.errors import InvalidArgument

if TYPE_CHECKING:
    from curvscope.operators.base import Operator
    from curvscope.solvers import Solution
    from curvscope.store import Run

FREE = ("k", "tol", "max_products", "device")
"""Options with which a run may be resumed other than it was begun."""
PLANNED = ("k", "method", "tol", "max_products")
"""Of a request, what a plan is made from."""
DEFAULT_FOLDER = "curvscope-eigs"
ADVISED = {"max_products": "--max-products"}
"""Options that the advice of a solution names."""


@dataclass(frozen=True)
class Wanted:
    """Which pairs are wanted: the request of :func:`curvscope.eigsh`."""

    k: Annotated[int, typer.Option("-k", "--k", help="Number of eigenpairs.")] = 10
    which: Annotated[
        str, typer.Option("--which", help="LM: largest magnitude; LA: largest; SA: most negative; BE: both ends.")
    ] = "LM"
    method: Annotated[str, typer.Option("--method", help=f"One of {SOLVERS}.")] = "auto"
    tol: Annotated[float, typer.Option("--tol", help="Residual wanted, relative to |eigenvalue|.")] = 1e-3
    max_products: Annotated[int | None, typer.Option("--max-products", help="Budget of products.")] = None
    seed: Annotated[int, typer.Option("--seed", help="Of the random start.")] = 0


@dataclass(frozen=True)
class Folder:
    """Where the run is kept."""

    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help=f"Folder for the run; one that was interrupted resumes. Default: a new one, ./{DEFAULT_FOLDER}, numbered.",
        ),
    ] = None
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            metavar="I:J",
            help="With --method seigh and --out: measure only these columns of the sketch, as one of many independent jobs. "
            "The same command without --columns finishes.",
        ),
    ] = None
    overwrite: Annotated[
        bool, typer.Option("--overwrite", "--force", help="Remove the run that --out names first, and begin anew.")
    ] = False


@grouped
def command(
    source: Source,
    request: Wanted,
    folder: Folder,
    *,
    memory: Memory = None,
    planned: Annotated[bool, typer.Option("--plan", help="Plan first; the report then compares plan and fact.")] = False,
    worker_options: WorkerOptions,
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

    Everything is kept in the folder as it comes: killed or stopped with Ctrl-C, the same command resumes. With another -k,
    --tol or --max-products it continues from what it has, also with other workers or with none.
    """
    from curvscope.operators import data_parallel
    from curvscope.runs import recipe_of_target
    from curvscope.solvers import eigsh, plan
    from curvscope.system import as_bytes

    if memory is not None:
        as_bytes(memory)
    if shards is not None and (source.target is None or worker_options.is_local):
        raise InvalidArgument("--shards is for --target, with --workers, --scheduler or --cluster to hold them")
    out = free_folder(DEFAULT_FOLDER) if folder.out is None else folder.out
    wanted = asdict(request)
    columns = _columns(folder, request)
    run, operator = _begin(out, source, wanted, overwrite=folder.overwrite, build=shards is None)
    if columns is not None:
        _measure(run, operator, request, columns, memory, as_json=as_json)
        return
    with worker_options.executor() as executor:
        if shards is not None:
            operator, executor = data_parallel(recipe_of_target(source.options()), shards, executor), None
        if planned and "plan" not in run.manifest:
            count = 1 if executor is None else executor.expected
            asked = {name: value for name, value in wanted.items() if name in PLANNED}
            made = plan(operator, **asked, memory=memory, run=out, workers=count)
            run.manifest["plan"] = made.to_dict()
            if not as_json:
                terminal().print(str(made), highlight=False, soft_wrap=True)
        solution: Solution = eigsh(operator, **wanted, memory=memory, run=run, executor=executor)
    if as_json:
        print_json(_plain(out, solution))
    else:
        console = terminal()
        console.print(in_options(str(solution), ADVISED), highlight=False, soft_wrap=True)
        first = f"curvscope certify {out}; then " if request.which == "LM" else "curvscope "  # certificates are for LM
        console.print(f"Run: {out}. Next: {first}overlap, density or report with it", highlight=False, soft_wrap=True)
    if solution.status.code == "partly":
        raise typer.Exit(1)


def _columns(folder: Folder, request: Wanted) -> tuple[int, int] | None:
    """Return the columns that one job is to measure, or None for a whole solve."""
    if folder.columns is None:
        return None
    if request.method not in ("seigh", "oversampled") or folder.out is None or folder.overwrite:
        raise InvalidArgument("--columns goes with --method seigh and --out RUN, and without --overwrite")
    first, colon, last = folder.columns.partition(":")
    if not (colon and first.isdigit() and last.isdigit()):
        raise InvalidArgument(f"--columns {folder.columns}: write the first column and the one after the last, such as 0:500")
    return int(first), int(last)


def _measure(run: Run, operator: Any, request: Wanted, columns: tuple[int, int], memory: str | None, *, as_json: bool) -> None:
    """Do one job's part of the measurements, and say what comes next."""
    from curvscope.solvers import measure_columns

    if operator is None:
        raise InvalidArgument("--columns measures in this process: leave out --shards")
    sizes: dict[str, Any] = {"k": request.k, "seed": request.seed, "max_products": request.max_products, "memory": memory}
    made = measure_columns(operator, columns, run=run, method=request.method, **sizes)
    if as_json:
        print_json({"run": str(run.path), "columns": list(columns), "measured": made})
        return
    text = f"Measured {made} of the columns {columns[0]} to {columns[1] - 1} into {run.path}."
    terminal().print(f"{text} The same command without --columns finishes", highlight=False, soft_wrap=True)


def _begin(out: Path, source: Source, wanted: dict[str, Any], *, overwrite: bool, build: bool) -> tuple[Run, Operator | None]:
    """Return the run and, unless workers build it in parts, its operator; an earlier run goes only when both can be had."""
    from curvscope.cli._trust import remember
    from curvscope.store import Run, remove

    options: dict[str, Any] = {"kind": "eigs", "options": source.options() | wanted, "free": FREE}
    earlier = overwrite and check_removable(out, "eigs")
    run = None if earlier else Run.resume(out, **options)
    operator = _operator(out, source, wanted, anew=earlier) if build else None
    if run is None:
        remove(out)
        run = Run.resume(out, **options)
    remember(run)
    return run, operator


def _operator(out: Path, source: Source, wanted: dict[str, Any], *, anew: bool) -> Operator:
    """The operator that was asked for: at the parameters that the run has, else at newly trained ones."""
    from curvscope.measurement import PARAMETERS
    from curvscope.problems import get
    from curvscope.runs import Choices, built, operator_at_step, operator_of_problem, recipe_of_problem, recipe_of_target
    from curvscope.solvers.driver import check_request
    from curvscope.store import Run

    options = source.options()
    if source.problem is None:
        return built(recipe_of_target(options))
    if (out / PARAMETERS).exists() and not anew:
        return operator_of_problem(Run.open(out))
    known = get(source.problem, data=source.data)
    request = {name: wanted[name] for name in ("k", "which", "method", "tol")}
    if source.params is None:
        check_request(size=sum(p.numel() for p in known.model().parameters()), **request)  # before the training
    operator = operator_at_step(known, source.step, source.split, Choices.of(options))
    operator.recipe = recipe_of_problem(out, options)
    return operator


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
