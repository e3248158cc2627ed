"""``curvscope info``: this installation, a problem, or a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curvscope.cli._names import AsJson, ProblemName
from curvscope.cli._output import print_json, terminal
from curvscope.errors import InvalidArgument

if TYPE_CHECKING:
    from curvscope.store import Run

AS_PINNED = "the k largest are where they should be"
DIFFERS = "DIFFERENT: the k largest are elsewhere"


def command(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN|PROBLEM", help="Folder of a run, or of saved pairs, or a problem's name.")
    ] = None,
    problem: ProblemName = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference", help="JSON of published logs (or their folder) to check a problem's initial parameters with."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show this installation (default), a problem, or a run.

    For a problem, its pinned definition, and whether its initial parameters are the pinned ones; exit status 1 if they are not.
    """
    from rich.table import Table as RichTable
    from rich.text import Text

    from curvscope.problems import names

    if run is not None and not run.exists() and str(run) in names():
        run, problem = None, problem or str(run)
    if run is not None and problem is not None:
        raise InvalidArgument("pass a RUN or --problem, not both")
    if reference is not None and problem is None:
        raise InvalidArgument("--reference is for a problem: pass --problem NAME too")
    facts = _run(run) if run is not None else _problem(problem, reference) if problem is not None else _installation()
    if as_json:
        print_json(facts)
        _end(facts)
    table = RichTable(box=None, show_header=False, pad_edge=False)
    for name, value in facts.items():
        table.add_row(Text(name, style="bold"), str(value))
    terminal().print(table, highlight=False)
    _end(facts)


def _end(facts: dict[str, Any]) -> None:
    """Exit status 1 where initial parameters are not what they should be."""
    raise typer.Exit(int(DIFFERS in (facts.get("initial parameters"), facts.get("published initial parameters"))))


def _installation() -> dict[str, Any]:
    import psutil
    import torch

    import curvscope
    from curvscope.problems import names

    memory = psutil.virtual_memory()
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "curvscope": curvscope.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "memory": f"{memory.available / 2**30:.1f} GiB free of {memory.total / 2**30:.1f}",
        "GPUs": ", ".join(devices) or "none",
        "problems": ", ".join(names()),
    }


def _problem(name: str, reference: Path | None) -> dict[str, Any]:
    from curvscope.problems import as_pinned, compare_with_reference, get

    problem = get(name)
    size = sum(parameter.numel() for parameter in problem.model().parameters())
    facts = {
        "problem": problem.name,
        "what": problem.description,
        "D": size,
        "criterion": str(problem.criterion),
        "learning rate": problem.defaults.learning_rate,
        "batch size": problem.defaults.batch_size,
        "seed": problem.defaults.seed,
        "steps": list(problem.defaults.steps),
        **problem.definition,
        "source": problem.source,
    }
    if problem.initial_top:
        facts["initial parameters"] = AS_PINNED if as_pinned(problem) else DIFFERS
    if reference is not None:
        found = compare_with_reference(problem, reference)
        facts["published largest places"] = f"{found['agree']} of {found['k']} in {found['file']}"
        facts["published initial parameters"] = AS_PINNED if found["same"] else DIFFERS
    return facts


def _run(path: Path) -> dict[str, Any]:
    from curvscope.measurement import TABLE
    from curvscope.store import Run, parsing

    if (path / TABLE).is_file():
        return _saved(path)
    run = Run.open(path)
    with parsing(path):
        return _facts(run)


def _saved(path: Path) -> dict[str, Any]:
    """Return what is known of results that were saved from Python, outside of a run."""
    import curvscope

    solution = curvscope.open(path)
    is_pairs = isinstance(solution, curvscope.Solution)
    return {
        "kind": "saved eigenpairs" if is_pairs else "saved singular triplets",
        "pairs" if is_pairs else "singular triplets": solution.k,
        "status": str(solution.status),
        "operator": solution.provenance.get("operator"),
        "files": ", ".join(sorted(item.name for item in path.iterdir())),
    }


def _facts(run: Run) -> dict[str, Any]:
    import curvscope
    from curvscope.measurement import has_results
    from curvscope.runs import certified_of
    from curvscope.system import as_text

    facts = {
        "kind": run.manifest["kind"],
        "created": run.manifest["created"],
        "command": " ".join(run.manifest["command"]),
        "options": ", ".join(f"{name}={value}" for name, value in run.manifest["options"].items() if value is not None),
        "versions": ", ".join(f"{name} {number}" for name, number in run.manifest["versions"].items()),
    }
    facts |= _state(run)
    if has_results(run.path):
        solution = curvscope.open(run.path)
        is_pairs = isinstance(solution, curvscope.Solution)
        spent = solution.cost.products + solution.cost.certificate_products
        facts |= {
            "pairs" if is_pairs else "singular triplets": solution.k,
            "status": str(solution.status),
            "products": solution.spent_products() if is_pairs else spent,
            "seconds": round(solution.cost.seconds, 2),
        }
        if is_pairs and (proven := (certified := certified_of(run)).certificate) is not None:
            dtype = str(certified.eigenvectors.dtype).removeprefix("torch.")
            facts["certified"] = f"{proven.complete} of {certified.k} are the largest, in {dtype}"
    facts["size"] = as_text(run.bytes)
    facts["files"] = ", ".join(sorted(item.name for item in run.path.iterdir()))
    return facts


def _state(run: Run) -> dict[str, Any]:
    """Return how far a run is: finished, at work, or stopped, and what is left of the current stage."""
    from curvscope.measurement import has_results
    from curvscope.store import SOLVING

    sessions, stages = run.manifest.get("sessions", []), run.manifest.get("stages", {})
    solves = [session for session in sessions if session.get("work", SOLVING) == SOLVING]
    if not solves:
        return {}
    ended, solved = solves[-1].get("ended"), has_results(run.path)
    if solved and (ended or {}).get("how") == "finished":
        state = "finished"
    elif run.in_use:
        state = "at work"
    elif ended is None:
        state = "interrupted (killed, or the machine stopped): run the same command again to resume"
    else:
        state = f"stopped at {ended['at']} ({ended['how']}): run the same command again to resume"
    if solved and state != "finished":
        state += "; the pairs below are those that an earlier session finished"
    shown = {"state": state, "sessions": len(sessions)}
    for name, stage in stages.items():
        done, total = stage.get("done", 0), stage.get("total", 0)
        of = f"{done} of {'at most ' if name == 'block Krylov' else ''}{total} products, " if total else ""
        shown[f"  {name}"] = f"{of}{stage.get('seconds', 0.0):.1f} s"
    return shown
