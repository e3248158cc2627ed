"""One solve from its operator to its solution, in memory or in a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from curvscope.measurement import Meter, Workspace, check_recipe, open_workers, workspace
from curvscope.operators.base import Operator
from curvscope.solvers.driver._finish import Pairs, finish, recalled
from curvscope.solvers.driver._request import EigenProblem, Prepared, Resources
from curvscope.solvers.results import Solution
from curvscope.system import Contention, Progress, threads


def solve(problem: EigenProblem, prepared: Prepared[Pairs], resources: Resources) -> Solution:
    """Find pairs, unless the run has them, and measure their residuals: what every eigensolver does."""
    with session(problem.operator, prepared, resources) as meter:
        pairs = recalled(meter) or prepared.find(meter)
        return finish(meter, pairs, which=problem.which, options=prepared.options)


@contextmanager
def session(operator: Operator, prepared: Prepared[Any], resources: Resources) -> Iterator[Meter]:
    """Products of an operator in the workspace of a solve: the run's, made or resumed, or one in memory."""
    check_recipe(operator, resources.executor)
    with (
        workspace(resources.run, operator, prepared.options, free=prepared.free, fitted=prepared.fitted) as place,
        metered(operator, resources.executor, resources.progress, place) as meter,
    ):
        yield meter


@contextmanager
def metered(operator: Operator, executor: Any, progress: Progress, place: Workspace | None = None) -> Iterator[Meter]:
    """Products of an operator, by an executor if there is one; ``place`` None: for work that keeps nothing in a run."""
    check_recipe(operator, executor)
    place = place or Workspace()
    with open_workers(operator, executor, place) as others, threads(None):
        meter = Meter(operator, progress, place, others)
        meter.contention = Contention()
        yield meter
