"""Products of an operator by workers: the columns of a block dealt out, or whole blocks of a test matrix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from curvscope.measurement._panels import Panels
from curvscope.measurement._workspace import Workspace
from curvscope.operators.base import Operator
from curvscope.operators.remote import Order, multiply, order_for, product, received
from curvscope.parallel import Task, as_workers, evenly
from curvscope.sketches import TestMatrix
from curvscope.store import METADATA
from curvscope.tall import OnDisk

BLOCKS_EACH = 4
"""Blocks for every worker from which whole blocks are dealt out: the last round then leaves few of them idle for long."""


class Distributed:
    """An operator whose products others compute. Test matrices have the same bits, results are equal to rounding.

    Args:
        operator: made by a :class:`.Recipe`; it is not multiplied here.
        executor: see :class:`.Workers`.
        report: how a run has computed its products so far; None: each worker chooses.

    Cost over the wire: D numbers there and back for each column; for the blocks of a test matrix none there, and none back
    where the run's store is within their reach.

    Raises:
        InvalidArgument: the operator does not know its recipe.
    """

    def __init__(self, operator: Operator, executor: Any, report: dict[str, Any] | None = None) -> None:
        self.operator, self.workers = operator, as_workers(executor)
        self.order = order_for(operator, report=report, threads=self.workers.threads, share=self.workers.share)

    def suits(self, blocks: int) -> bool:
        """Return whether so many blocks keep all workers busy if each is one worker's; else their columns are dealt out."""
        return blocks >= BLOCKS_EACH * self.workers.count

    def multiply(self, block: Tensor, *, adjoint: bool = False) -> Tensor:
        """The product with a (D, b) block, its columns dealt out evenly."""
        whole, order = block.detach().cpu().numpy(), self.order.announced(self.workers.count)
        tasks = (
            Task((order, np.asfortranarray(whole[:, start:stop]), adjoint), stop - start)
            for start, stop in evenly(block.shape[1], self.workers.count)
        )
        parts = [received(part) for part in self.workers.map(multiply, tasks)]
        return torch.cat([part.T for part in parts]).T.to(block.device)

    def measure(
        self, right: Any, blocks: Iterable[tuple[int, int]], store: OnDisk | None, *, adjoint: bool = False
    ) -> Iterator[Tensor | None]:
        """Products with blocks of columns of ``right``, several at a time; in their order.

        Workers make the columns of a test matrix themselves; with a ``store`` they also write the products there, each block
        into tiles of its own, and None comes back, unless they do not reach it.
        """
        order = self.order.announced(self.workers.count)

        def task(start: int, stop: int) -> Task:
            """Of these columns."""
            tile = None if store is None else Tile.of(store, start)
            return Task((order, _columns(right, start, stop), tile, adjoint), stop - start)

        # Where products come back, one a worker at a time lies here.
        for part in self.workers.map(measure, (task(*block) for block in blocks), ahead=1 if store is None else 2):
            yield None if part is None else received(part).to(self.operator.device)


def check_recipe(operator: Operator, executor: Any) -> None:
    """Before anything is done: can workers build this operator?

    Raises:
        InvalidArgument: it does not know its recipe. InvalidType: not an executor.
    """
    if executor is not None:
        as_workers(executor)
        order_for(operator)


@contextmanager
def open_workers(operator: Operator, executor: Any, place: Workspace) -> Iterator[Distributed | None]:
    """Workers for the products of a solve, noted in its run; None without an executor."""
    if executor is None:
        yield None
        return
    others = Distributed(operator, executor, report=place.recorded_strategy())
    place.panels = Panels(others.workers)
    place.note_session(workers=others.workers.description)
    try:
        yield others
    finally:
        if others.workers is not executor:
            others.workers.close()


class Tile(NamedTuple):
    """Destination of a block of products: a matrix on a disk that workers may reach, from a column on.

    ``identity`` is of the matrix as the solver sees it: a worker that comes too late may find another one at that path.
    """

    path: Path
    column: int
    identity: tuple[int, int]

    @classmethod
    def of(cls, store: OnDisk, column: int) -> Tile:
        """In this matrix."""
        place = store.path.absolute()
        return cls(place, column, identity_of(place))

    @property
    def reached(self) -> bool:
        """True if the matrix is on this machine and is the intended one."""
        return (self.path / METADATA).exists() and identity_of(self.path) == self.identity


def identity_of(path: Path) -> tuple[int, int]:
    """File and time of the description of a matrix."""
    found = (path / METADATA).stat()
    return found.st_ino, found.st_mtime_ns


class Drawn(NamedTuple):
    """Columns of a test matrix, by name."""

    kind: str
    rows: int
    seed: int
    role: str
    start: int
    stop: int

    def on(self, operator: Operator) -> Tensor:
        """Make them."""
        matrix = TestMatrix(self.kind, self.rows, seed=self.seed, role=self.role, dtype=operator.dtype, device=operator.device)
        return matrix.columns(self.start, self.stop)


def measure(order: Order, columns: Drawn | np.ndarray, tile: Tile | None, adjoint: bool) -> np.ndarray | None:
    """Multiply with columns of a test matrix, or with those that were sent; called in a worker."""

    def directions(operator: Operator) -> Tensor:
        """The columns, where this worker's operator is."""
        return columns.on(operator) if isinstance(columns, Drawn) else received(columns).to(operator.device)

    result = product(order, directions, adjoint)
    if tile is None or not tile.reached:
        return result.cpu().numpy()
    OnDisk(tile.path).write(tile.column, result.cpu())
    return None


def _columns(right: Any, start: int, stop: int) -> Drawn | np.ndarray:
    if isinstance(right, TestMatrix):
        return Drawn(right.kind, right.rows, right.seed, right.role, start, stop)
    return np.asfortranarray(right.columns(start, stop).cpu().numpy())
