"""Rounds of independent products, and what can be read off them at once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from curvscope.measurement._distributed import Distributed
from curvscope.measurement._meter import Meter
from curvscope.measurement._workspace import Known
from curvscope.operators import raise_if_asymmetric
from curvscope.operators.base import Operator
from curvscope.sketches import TestMatrix
from curvscope.system import give_back
from curvscope.tall import InMemory, OnDisk, TallMatrix, asymmetry, gram

Block = tuple[int, Any, Callable[[], Tensor]]
"""First column, products (None where nobody looks at them), and a function that gives the columns that were multiplied."""


class Measured:
    """A @ (columns 0..count of a test matrix), or A* @ them, block by block; those that a run has already are read from it.

    Iterating gives (first column, block, what was multiplied) for every block in order, the last as a function that makes it
    where it must be made again; afterwards :attr:`matrix` holds the first ``kept``
    columns of products, D x kept (in a run, all of them).

    Args:
        meter: counts the products; its workspace says where they go.
        right: the test matrix.
        count: how many columns.
        block_size: columns multiplied at a time.
        kept: how many of the products are needed again; default all.
        adjoint: multiply with A* instead.
        name: of the measurements in a run; default by the test matrix.

    Cost: count products.
    """

    def __init__(
        self,
        meter: Meter,
        right: Columns,
        count: int,
        block_size: int,
        *,
        kept: int | None = None,
        adjoint: bool = False,
        name: str = "",
    ) -> None:
        self.meter, self.right, self.count, self.block_size, self.adjoint = meter, right, count, block_size, adjoint
        self.kept = count if kept is None else kept
        if not name:
            assert isinstance(right, TestMatrix), "other blocks are named by those who multiply them"
            name = f"{right.role}-{right.kind}"
        self.name = name
        rows = meter.operator.shape[1 if adjoint else 0]
        self.matrix = meter.workspace.measurements(self.name, rows, count, self.kept, block_size, meter.operator)

    def __iter__(self) -> Iterator[tuple[int, Tensor, Callable[[], Tensor]]]:
        return self._blocks(looked_at=True)

    def all(self) -> TallMatrix:
        """Make all of them; the products, (D, kept)."""
        deque(self._blocks(looked_at=False), maxlen=0)  # a loop variable would hold a block while the next one is made
        return self.matrix if self.matrix.shape[1] == self.kept else self.matrix.leading(self.kept)

    def _blocks(self, *, looked_at: bool) -> Iterator[Block]:
        """See the class; blocks that lie on disk are read only if somebody looks at them."""
        known = self.meter.workspace.known(self.name, self.count)
        plan = list(self._plan(known))
        missing = [(start, stop) for start, stop, seconds in plan if seconds is None]
        others = self.meter.distributed
        dealt = others if others is not None and others.suits(len(missing)) else None
        with closing(self._here(missing) if dealt is None else self._by_workers(missing, dealt, looked_at)) as fresh:
            for start, stop, seconds in plan:
                if seconds is None:
                    yield next(fresh)
                else:
                    self.meter.recall(stop - start, seconds)
                    block = self.matrix.columns(start, stop) if looked_at else None
                    yield start, block, partial(self.right.columns, start, stop)
                    del block
        give_back()  # the blocks are done with, what comes next has other sizes

    def _plan(self, known: list[Known]) -> Iterator[tuple[int, int, float | None]]:
        """All blocks in order: (first column, last, seconds that a known one took or None)."""
        done = 0
        for start, stop, seconds in [*known, Known(self.count, self.count, 0.0)]:
            yield from ((*block, None) for block in self._grid(done, start))
            if stop > start:
                yield start, stop, seconds
            done = max(done, stop)

    def _grid(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Blocks from start to stop that end where blocks from 0 would end."""
        while start < stop:
            end = min(stop, (start // self.block_size + 1) * self.block_size)
            yield start, end
            start = end

    def _here(self, missing: list[tuple[int, int]]) -> Generator[Block, None, None]:
        """Make these blocks one after the other."""
        for start, stop in missing:
            directions = self.right.columns(start, stop)
            product = self.meter.multiply_adjoint(directions) if self.adjoint else self.meter.multiply(directions)
            again = _returning(directions)
            self._keep(start, stop, product, again)
            yield start, product, again
            del directions, product, again

    def _by_workers(self, missing: list[tuple[int, int]], others: Distributed, looked_at: bool) -> Generator[Block, None, None]:
        """Have these blocks made by several at a time, who write them where they reach the run's store."""
        store = self.matrix if isinstance(self.matrix, OnDisk) else None
        begun = time.perf_counter()
        for (start, stop), made in zip(missing, others.measure(self.right, missing, store, adjoint=self.adjoint), strict=True):
            self.meter.count(stop - start, time.perf_counter() - begun)
            product = made
            if made is None and (looked_at or start == 0):
                product = self.matrix.columns(start, stop)
            directions = partial(self.right.columns, start, stop)
            self._keep(start, stop, product, directions, written=made is None)
            yield start, product, directions
            del made, product
            begun = time.perf_counter()

    def _keep(
        self, start: int, stop: int, product: Tensor | None, directions: Callable[[], Tensor], *, written: bool = False
    ) -> None:
        """Look at the first block, put a block in its place unless it is there, and commit it."""
        if start == 0 and not self.adjoint and self.meter.operator.hermitian and isinstance(self.right, TestMatrix):
            assert product is not None, "the first block comes back"
            check_hermitian(InMemory(directions()), InMemory(product), self.meter.operator)
        seconds, room = self.meter.last_seconds, self.matrix.shape[1]
        if not written and start < room:
            assert product is not None, "nobody else wrote it"
            self.matrix.write(start, product[:, : room - start])
        self.meter.workspace.commit(self.name, start, stop, seconds)


class Columns(Protocol):
    """Block that is multiplied: a test matrix, or a tall one."""

    def columns(self, start: int, stop: int) -> Tensor:
        """Columns start..stop."""


def _returning(made: Tensor) -> Callable[[], Tensor]:
    return lambda: made


def blocks(count: int, block_size: int) -> Iterator[tuple[int, int]]:
    """The column ranges of ``count`` columns, ``block_size`` at a time.

    >>> list(blocks(5, 2))
    [(0, 2), (2, 4), (4, 5)]
    """
    for start in range(0, count, block_size):
        yield start, min(start + block_size, count)


def remembered(meter: Meter, name: str, columns: int, compute: Callable[[], Tensor]) -> Tensor:
    """The small result of one block of products, or what a run has kept of it; counted either way."""
    if meter.workspace.run is None:
        return compute()
    before, passes, seconds = meter.products, meter.passes, meter.seconds["products"]

    def counted() -> dict[str, Tensor]:
        """The result, and what it cost."""
        found = compute()
        return {
            "found": found,
            "spent": torch.tensor(
                [meter.passes - passes, meter.seconds["products"] - seconds], dtype=torch.float64, device="cpu"
            ),
        }

    kept = meter.workspace.remember(name, counted)
    if meter.products == before:
        passes, seconds = kept["spent"].tolist()
        meter.recall(columns, seconds, passes=int(passes))
    return kept["found"]


def check_hermitian(directions: TallMatrix, products: TallMatrix, operator: Operator) -> None:
    r"""Raise NotHermitian if products Y = A X show that A is not Hermitian: X* Y must be.

    For random X the asymmetry of X\* Y is about that of A, ||A - A*||_F / ||A||_F. Costs no products; says nothing for one
    column of a real operator.
    """
    measured = asymmetry(gram(directions, products))
    refuse_asymmetry(measured, operator, f"X'AX of {directions.shape[1]} vectors differs from its adjoint")


def refuse_asymmetry(measured: float, operator: Operator, seen: str) -> None:
    """Raise NotHermitian if an asymmetry, relative to the norm, is more than rounding; see :func:`.raise_if_asymmetric`."""
    raise_if_asymmetric(measured, operator.shape[0], operator.rounding, seen)
