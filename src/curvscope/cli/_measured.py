"""The operator that a command is about: a problem's, the user's own, or that of a run."""

from __future__ import annotations

from dataclasses import replace

import torch

from curvscope.cli._source import Source
from curvscope.cli._trust import confirm_trust
from curvscope.errors import InvalidArgument, RunConflict
from curvscope.operators import operator_differences
from curvscope.operators.base import Operator
from curvscope.problems import get
from curvscope.runs import (
    Choices,
    built,
    operator_at_step,
    recipe_of_problem,
    recipe_of_target,
    solution_of,
)
from curvscope.solvers import Solution
from curvscope.solvers.certification import rounding_of
from curvscope.store import Run

HIGHER = ("float64", "float32")


def measured(source: Source, *, trust: bool = False) -> tuple[Operator, Solution | None]:
    """Return the operator that was named; a run's comes with its eigenpairs."""
    if source.run is not None:
        opened = Run.open(source.run)
        solution = solution_of(opened)
        return operator_of_run(opened, solution, trust=trust, device=source.device), solution
    options = source.options()
    if source.target is not None:
        return built(recipe_of_target(options)), None
    problem = get(str(source.problem), data=source.data)
    return operator_at_step(problem, source.step, source.split, Choices.of(options)), None


def untrained(source: Source) -> Operator:
    """Return the operator that was named, a problem's at its first step: a product costs the same."""
    if source.problem is None:
        return measured(source)[0]
    choices = Choices.of(source.options())
    return operator_at_step(get(source.problem, data=source.data), 0, source.split, replace(choices, checkpoint=None))


def operator_of_run(run: Run, solution: Solution, *, trust: bool, device: str | None = None) -> Operator:
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
    if device is not None:
        options = options | {"device": device}
    operator = built(recipe_of_problem(run.path, options) if target is None else recipe_of_target(options))
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
        return built(recipe_of_problem(run.path, options | {"precision": precision}))
    finer_operator = operator.in_dtype(getattr(torch, str(precision)))
    if finer_operator is None:
        raise InvalidArgument(
            f"--precision: {options['target']} returns a {type(operator).__name__}, which cannot be built in another precision "
            "than its own: return (model, loss, data) or an operator of a model, or pass curvscope.certify one that is"
        )
    return finer_operator
