"""One solve from its operator to its solution, in memory or in a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from curvscope.measurement import Fit, Meter, Place, Workspace, check_recipe, hired, workspace
from curvscope.operators.base import Operator
from curvscope.solvers.driver._finish import Pairs, finish, recalled
from curvscope.solvers.results import Solution
from curvscope.store import Run
from curvscope.system import Contention, Progress, threads


def solve(
    operator: Operator,
    find: Callable[[Meter], Pairs],
    *,
    which: str,
    options: dict[str, Any],
    free: Iterable[str] = (),
    progress: Progress = None,
    run: Place | Run | None = None,
    fitted: Fit | None = None,
    executor: Any = None,
) -> Solution:
    """Find pairs, unless the run has them, and measure their residuals: what every eigensolver does.

    Args:
        operator: checked already.
        find: the method; it works where the meter's workspace says.
        which: order of the pairs.
        options: everything that determines the result.
        free: names of options that a run may be gone on with under other values, reusing its measurements.
        progress: see :data:`.progress.Progress`.
        run: where everything is kept; see :func:`.workspace.workspace`.
        fitted: how it fits into memory; None: it does.
        executor: who computes the products; see :class:`.Workers`. None: this process.
    """
    check_recipe(operator, executor)
    with (
        workspace(run, operator, options, free=free, fitted=fitted) as place,
        hired(operator, executor, place) as others,
        threads(None),
    ):
        meter = Meter(operator, progress, place, others)
        meter.contention = Contention()
        return finish(meter, recalled(meter) or find(meter), which=which, options=options)


@contextmanager
def metered(operator: Operator, executor: Any, progress: Progress, place: Workspace | None = None) -> Iterator[Meter]:
    """Products of an operator, by an executor if there is one; ``place`` None: for work that keeps nothing in a run."""
    check_recipe(operator, executor)
    place = place or Workspace()
    with hired(operator, executor, place) as others, threads(None):
        meter = Meter(operator, progress, place, others)
        meter.contention = Contention()
        yield meter
