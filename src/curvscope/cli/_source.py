"""The operator that a command is about: a problem's, the user's own, or that of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from curvscope.cli._trust import confirm_trust
from curvscope.errors import InvalidArgument, RunConflict
from curvscope.operators import operator_differences
from curvscope.operators.base import Operator
from curvscope.problems import get
from curvscope.runs import (
    MATRICES,
    arithmetic_of,
    operator_at_step,
    operator_of_problem,
    recipe_of_problem,
    recipe_of_target,
    solution_of,
)
from curvscope.solvers import Solution
from curvscope.solvers.certification import rounding_of
from curvscope.store import Run

HIGHER = ("float64", "float32")
UNCHOSEN: dict[str, Any] = {"data": None, "step": 0, "split": "train", "matrix": "hessian", "precision": None}
"""Values of the options that describe an operator, where they are not given."""


def operator_of_run(run: Run, solution: Solution, *, trust: bool) -> Operator:
    """The operator of a run, built again; workers can build it, too.

    Raises:
        RunConflict: parameters, data, loss or library have changed since. InvalidArgument: it was made by a program of the
            user's, and does not know how to build its operator.
    """
    options = run.manifest["options"]
    target = options.get("target")
    if target is None and options.get("problem") is None:
        raise InvalidArgument(
            f"{run.path} was made in Python and does not know how to build its operator: there, pass it with "
            f"curvscope.open({str(run.path)!r}) to curvscope.certify, density or trace; overlap, report, export and info need "
            "the run alone"
        )
    confirm_trust(run, trust=trust)
    if target is None:
        operator: Operator = operator_of_problem(run)
    else:
        operator = recipe_of_target(target, options.get("matrix", "hessian"), options.get("precision")).build()
    if differing := operator_differences(solution.provenance, operator):
        raise RunConflict(
            f"{run.path} was made with another operator than {target or 'its problem'} gives now: {'; '.join(differing)}. A "
            "function that draws parameters or data at random needs a fixed seed; otherwise run `curvscope eigs` again"
        )
    return operator


def operator_in_precision(run: Run, solution: Solution, precision: str | None, *, trust: bool) -> Operator:
    """The operator of a run, in higher precision if one is named: float64 for a run in float32, either for a coarser one.

    Raises:
        InvalidArgument: no such precision, one that is lower than the run's, or an operator that cannot be built in another.
        RunConflict: see :func:`operator_of_run`.
    """
    if precision is not None and precision not in HIGHER:
        raise InvalidArgument(f"--precision {precision!r}: choose one of {', '.join(HIGHER)}; without it, the run's own")
    finer = 0.0 if precision is None else torch.finfo(getattr(torch, precision)).eps - rounding_of(solution)
    if finer > 0:
        raise InvalidArgument(
            f"--precision {precision} is lower than that of {run.path} ({solution.provenance['dtype']}): leave it out"
        )
    operator = operator_of_run(run, solution, trust=trust)
    if finer == 0:
        return operator
    options = run.manifest["options"]
    if options.get("target") is None:
        return recipe_of_problem(run.path, options | {"precision": precision}).build()
    finer_operator = operator.in_dtype(getattr(torch, str(precision)))
    if finer_operator is None:
        raise InvalidArgument(
            f"--precision: {options['target']} returns a {type(operator).__name__}, which cannot be built in another precision "
            "than its own: return (model, loss, data) or an operator of a model, or pass curvscope.certify one that is"
        )
    return finer_operator


def check_source(problem: str | None, target: str | None) -> None:
    """Raise InvalidArgument unless exactly one of the two is given."""
    if (problem is None) == (target is None):
        raise InvalidArgument(
            "pass either --problem NAME or --target MODULE:FUNCTION: `curvscope info` lists the problems, and a function of "
            "yours returns (model, loss, data)"
        )


def check_problem_options(problem: str | None, **choices: Any) -> None:
    """Raise InvalidArgument where --data, --split or --step is given with a target, which would ignore it."""
    if problem is None:
        _refuse(choices, " is for a --problem: your --target function decides by itself")


def check_run_alone(**choices: Any) -> None:
    """Raise InvalidArgument where an option that describes an operator is given with a RUN, which has its own."""
    _refuse(choices, ": a RUN has its own operator, leave the option out, or the RUN")


def _refuse(choices: dict[str, Any], why: str) -> None:
    for name, value in choices.items():
        if value != UNCHOSEN[name]:
            raise InvalidArgument(f"--{name}{why}")


def check_choices(matrix: str, precision: str | None) -> None:
    """Raise InvalidArgument unless there are such a matrix and such a precision."""
    if matrix not in MATRICES:
        raise InvalidArgument(f"--matrix {matrix!r}: choose one of {', '.join(MATRICES)}")
    arithmetic_of(precision)


def chosen(
    run: Path | None,
    problem: str | None,
    target: str | None,
    *,
    data: Path | None = None,
    step: int = 0,
    split: str = "train",
    matrix: str = "hessian",
    precision: str | None = None,
    trust: bool = False,
) -> tuple[Operator, Solution | None]:
    """The operator that was named in one of three ways; a run's comes with its eigenpairs.

    Raises:
        InvalidArgument: named in none, or in several ways; or choices that only a problem has.
    """
    if [run, problem, target].count(None) != 2:
        raise InvalidArgument("pass one of RUN, --problem NAME and --target MODULE:FUNCTION")
    if run is not None:
        check_run_alone(data=data, step=step, split=split, matrix=matrix, precision=precision)
        opened = Run.open(run)
        solution = solution_of(opened)
        return operator_of_run(opened, solution, trust=trust), solution
    check_problem_options(problem, data=data, split=split, step=step)
    check_choices(matrix, precision)
    if target is not None:
        return recipe_of_target(target, matrix, precision).build(), None
    return operator_at_step(get(problem, data=data), step, split, matrix, precision), None
