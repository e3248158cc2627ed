"""``curvscope overlap RUN``: the run's eigenvectors against a mask of its parameters; or without eigenvectors, on a problem."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

from curvscope.cli._names import AsJson, DataFolder, LanczosMemory, Matrix, Precision, ProblemName, Split, Step, TargetName
from curvscope.cli._output import print_json, terminal
from curvscope.cli._source import check_run_alone, chosen
from curvscope.cli._tables import as_rich
from curvscope.errors import InvalidArgument
from curvscope.operators.base import Operator
from curvscope.report import Table
from curvscope.runs import MASKS, measure_overlap, solution_of
from curvscope.store import Run, check_can_be_made
from curvscope.subspaces import OverlapCurve, OverlapEstimate, masks, overlap_without_vectors, plan_without_vectors


@dataclass(frozen=True)
class Without:
    """Options of an estimate without vectors."""

    k: int
    probes: int
    steps: int
    memory: str | None
    known: Path | None
    plan: bool


def command(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="Folder that `curvscope eigs --out` wrote.")] = None,
    mask: Annotated[str, typer.Option("--mask", help=f"One of {', '.join(MASKS)}.")] = "magnitude",
    problem: ProblemName = None,
    target: TargetName = None,
    data: DataFolder = None,
    step: Step = 0,
    split: Split = "train",
    matrix: Matrix = "hessian",
    precision: Precision = None,
    k: Annotated[int | None, typer.Option("-k", help="Without a RUN: the largest k.")] = None,
    probes: Annotated[int | None, typer.Option("--probes", help="Without a RUN: random sign vectors; default 10.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Without a RUN: Lanczos steps for each; default 100.")] = None,
    known: Annotated[
        Path | None, typer.Option("--eigenvalues", help="Without a RUN: a run whose eigenvalues set the thresholds.")
    ] = None,
    memory: LanczosMemory = None,
    planned: Annotated[bool, typer.Option("--plan", help="Without a RUN: say what it would take, and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Overlap of the top-k eigenspace with the top-k mask, for every k, beside chance.

    With a RUN, from its eigenvectors. With --problem or --target and -k, without any: masked Lanczos quadrature, memory O(D),
    an estimate with its standard error for the mask by magnitude.
    """
    if mask not in MASKS:
        raise InvalidArgument(f"--mask {mask!r}: choose one of {', '.join(MASKS)}")
    if run is None:
        if k is None or mask != "magnitude":
            raise InvalidArgument("without a RUN pass -k, the largest k, and leave --mask out: magnitude is the one there is")
        own, _ = chosen(None, problem, target, data=data, step=step, split=split, matrix=matrix, precision=precision)
        _without_vectors(
            own, Without(k, 10 if probes is None else probes, 100 if steps is None else steps, memory, known, planned), as_json
        )
        return
    if planned or any(given is not None for given in (problem, target, k, probes, steps, known, memory, precision)):
        raise InvalidArgument(
            "a RUN has its eigenvectors, for every k: leave --problem, --target, -k, --probes, --steps, --eigenvalues, "
            "--memory, --precision and --plan out, or the RUN for an estimate without eigenvectors"
        )
    check_run_alone(data=data, step=step, split=split, matrix=matrix)
    opened = Run.open(run)
    check_can_be_made(run)
    curve = measure_overlap(opened, mask)
    if as_json:
        print_json(curve.to_dict())
        return
    console = terminal()
    console.print(as_rich(_table(curve)))
    console.print(f"Every k is in {opened.path / f'overlap-{mask}.json'}", highlight=False, soft_wrap=True)


def _without_vectors(operator: Operator, asked: Without, as_json: bool) -> None:
    if (objective := operator.objective) is None:
        raise InvalidArgument("a mask by magnitude needs parameters: --target must return (model, loss, data)")
    options = {"num_probes": asked.probes, "num_steps": asked.steps, "memory": asked.memory}
    if asked.plan:
        plan = plan_without_vectors(operator, known_eigenvalues=asked.known is not None, **options)
        if as_json:
            print_json(vars(plan))
        else:
            typer.echo(str(plan))
        return
    eigenvalues = None if asked.known is None else solution_of(Run.open(asked.known))
    found = overlap_without_vectors(
        operator,
        masks.largest(objective.parameters.join(objective.values), asked.k),
        asked.k,
        eigenvalues=eigenvalues,
        **options,
    )
    if as_json:
        print_json(found.to_dict())
        return
    terminal().print(as_rich(_estimates(found)))
    typer.echo(f"{found.products} products. Where 'half the steps' differs by more than the errors, take more --steps.")


def _table(curve: OverlapCurve) -> Table:
    heads, rows = ["k", "overlap", "chance", "ratio"], []
    for k in _shown(len(curve.k)):
        rows.append([str(k), f"{curve.at(k):.3e}", f"{k / curve.size:.3e}", f"{float(curve.ratio[k - 1]):.2f}"])
        if curve.lower is not None and curve.upper is not None:
            rows[-1] += [f"{float(curve.lower[k - 1]):.3e}", f"{float(curve.upper[k - 1]):.3e}"]
    return Table(heads if curve.lower is None else [*heads, "certified\nlower", "certified\nupper"], rows)


def _estimates(found: OverlapEstimate) -> Table:
    columns = torch.stack([found.value, found.stderr, found.coarse, found.chance, found.thresholds])
    rows = [
        [str(k), *(f"{float(x):.3e}" for x in columns[:, k - 1]), f"{float(found.ratio[k - 1]):.2f}"]
        for k in _shown(len(found))
    ]
    heads = ["k", "overlap", "standard\nerror", "half the\nsteps", "chance", "threshold", "ratio"]
    return Table(heads, rows)


def _shown(most: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... and the last."""
    steps = [m * 10**e for e in range(7) for m in (1, 2, 5)]
    return [k for k in steps if k < most] + [most]
