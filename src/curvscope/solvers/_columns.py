"""Columns of a sketch measured by independent jobs: no process has to live on for the others."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from curvscope.errors import InvalidArgument, RunConflict
from curvscope.measurement import Known, Place, Workspace, blocks, draw, was_begun, workspace
from curvscope.operators import as_operator
from curvscope.operators.base import Operator
from curvscope.solvers._eigsh import chosen_method
from curvscope.solvers.driver import EigenProblem, Prepared, Resources, check_fit, metered
from curvscope.solvers.sketched import Seigh
from curvscope.store import Lock, Run
from curvscope.system import Progress, checked, stage
from curvscope.tall import TallMatrix

Found = TypeVar("Found")
IN_USE = "is in use"
"""In the message of a lock that another process holds."""
PATIENCE, PAUSE = 600.0, 0.2
"""Seconds that a job waits for another one to write, and between two looks."""


@checked
def measure_columns(  # noqa: PLR0913 -- a public function: request and resources, by keyword
    operator: Any,
    columns: tuple[int, int],
    *,
    run: Place | Run,
    k: int = 6,
    method: str | Seigh = "seigh",
    seed: int = 0,
    max_products: int | None = None,
    memory: int | str | None = None,
    progress: Progress = None,
) -> int:
    """Measure some columns of a SEIGH sketch into a run, for a later call of :func:`curvscope.eigsh` with the same request.

    Any number of such jobs may run at a time, on any machines that see the folder, in any order; each writes tiles of its own,
    so nothing is merged. Columns that are there are not measured again. The call that finishes measures what is missing.

    Args:
        operator: the same in every job.
        columns: (first, last), last excluded: multiples of the run's block size, or the number of products at the end.
        run: folder of the run; the first job makes it.
        k: as in the call that finishes, also for the following.
        method: "seigh", or a :class:`curvscope.Seigh`.
        seed: of the test matrices.
        max_products: budget from which the sizes follow, where the method is given by name.
        memory: bound for this process.
        progress: see :data:`.progress.Progress`.

    Returns:
        The number of columns that were measured now.

    Cost: as many products; a lock is held only while a block is written.

    Raises:
        InvalidArgument: columns that are out of range, or not on the grid of tiles; the message names the nearest ones.
        RunConflict: the run is another solve's, or another process held it for ten minutes. NotFinite: NaN in a product,
        which is not written.

    >>> import tempfile, torch, curvscope as cs
    >>> A, run = torch.diag(torch.linspace(1, 2, 200)), tempfile.mkdtemp()
    >>> [measure_columns(A, part, run=run, k=8) for part in ((0, 32), (0, 32))]
    [32, 0]
    >>> cs.eigsh(A, k=8, method="seigh", run=run).cost.products
    32
    """
    operator = as_operator(operator)
    given = {} if max_products is None else {"max_products": max_products}
    solver = chosen_method("seigh" if method in ("seigh", "oversampled") else method, given)
    if not isinstance(solver, Seigh):
        raise InvalidArgument(f'method={method!r}: only columns of "seigh" are independent products of one round')
    problem = EigenProblem(operator, k, seed=seed)
    prepared = solver.prepare(problem, Resources(memory, run))
    count, width, kind = (prepared.options[name] for name in ("num_inner", "block_size", "sketch"))
    start, stop = columns
    _check_columns(start, stop, count, width)
    place = run.path if isinstance(run, Run) else Path(run)
    right, name = draw(kind, operator, seed=seed, role="right"), f"right-{kind}"
    own, matrix, known = _patiently(place, partial(_opened, run, operator, prepared, name))
    there = {(each.start, each.stop) for each in known}
    missing = [(a + start, min(b + start, count)) for a, b in blocks(stop - start, width)]
    missing = [part for part in missing if part not in there]
    with metered(operator, None, False) as meter, stage("columns", stop - start, progress) as advance:
        for first, last in missing:
            begun = time.perf_counter()
            product = meter.multiply(right.columns(first, last))  # checked before anything is written
            block = (first, product, time.perf_counter() - begun)
            _patiently(place, partial(_written, own, matrix, name, block))
            advance(last - first)
    return sum(last - first for first, last in missing)


def _check_columns(start: int, stop: int, count: int, width: int) -> None:
    if not 0 <= start < stop <= count:
        raise InvalidArgument(f"columns={start}:{stop}: choose columns of 0:{count}, which this sketch has")
    if start % width or (stop % width and stop != count):
        lower, upper = start // width * width, min(-(-stop // width) * width, count)
        raise InvalidArgument(f"columns={start}:{stop}: tiles have {width} columns, choose {lower}:{upper}")


def _opened(run: Any, operator: Operator, prepared: Prepared[Any], name: str) -> tuple[Workspace, TallMatrix, list[Known]]:
    """The run's workspace, its room for the products, and the blocks that are there; the lock is free again afterwards."""
    count, width = prepared.options["num_inner"], prepared.options["block_size"]
    begun = was_begun(run, operator)
    if not begun:
        check_fit(operator)
    with workspace(run, operator, prepared.options, free=prepared.free, fitted=prepared.fitted) as own:
        matrix = own.measurements(name, operator.shape[0], count, count, width, operator)
        return own, matrix, own.known(name, count)


def _written(own: Workspace, matrix: TallMatrix, name: str, block: tuple[int, Tensor, float]) -> None:
    """Write a block while holding the run's lock: leftovers are cleared by holders only, so nobody removes what is written."""
    assert own.run is not None, "a job works in a run"
    start, product, seconds = block
    lock = Lock(own.run.path)
    lock.take()
    try:
        matrix.write(start, product)
        own.commit(name, start, start + product.shape[1], seconds)
    finally:
        lock.release()


def _patiently(place: Path, work: Callable[[], Found]) -> Found:
    """Do what needs the run's lock, as soon as no other process has it.

    Raises:
        RunConflict: another process still has it after ten minutes.
    """
    ended = time.monotonic() + PATIENCE
    while True:
        try:
            return work()
        except RunConflict as error:
            if IN_USE not in str(error) or time.monotonic() > ended:
                raise
            time.sleep(PAUSE)
