"""Rounds of independent products, and what can be read off them at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from curvscope.errors import NotHermitian
from curvscope.sketches import TestMatrix
from curvscope.solvers.meter import Meter
from curvscope.solvers.recovery import asymmetry
from curvscope.solvers.workspace import Known
from curvscope.tall import InMemory, TallMatrix, gram


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
        self.name = name or f"{right.role}-{right.kind}"
        rows = meter.operator.shape[1 if adjoint else 0]
        self.matrix = meter.workspace.measurements(self.name, rows, count, self.kept, block_size, meter.operator)

    def __iter__(self) -> Iterator[tuple[int, Tensor, Callable[[], Tensor]]]:
        done = 0
        for start, stop, seconds in [*self.meter.workspace.known(self.name, self.count), Known(self.count, self.count, 0.0)]:
            for begin, end in self._grid(done, start):
                directions = self.right.columns(begin, end)
                product = self._multiply(begin, directions)
                yield begin, product, lambda made=directions: made
                del directions, product
            if stop > start:
                self.meter.recall(stop - start, seconds)
                yield start, self.matrix.columns(start, stop), partial(self.right.columns, start, stop)
            done = max(done, stop)

    def all(self) -> TallMatrix:
        """Make all of them; the products, (D, kept)."""
        deque(self, maxlen=0)  # a loop variable would hold a block while the next one is made
        return self.matrix if self.matrix.shape[1] == self.kept else self.matrix.leading(self.kept)

    def _grid(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Blocks from start to stop that end where blocks from 0 would end."""
        while start < stop:
            end = min(stop, (start // self.block_size + 1) * self.block_size)
            yield start, end
            start = end

    def _multiply(self, start: int, directions: Tensor) -> Tensor:
        stop = start + directions.shape[1]
        product = self.meter.multiply_adjoint(directions) if self.adjoint else self.meter.multiply(directions)
        if start == 0 and not self.adjoint and self.meter.operator.hermitian and isinstance(self.right, TestMatrix):
            check_hermitian(InMemory(directions), InMemory(product))
        seconds, room = self.meter.last_seconds, self.matrix.shape[1]
        if start < room:
            self.matrix.write(start, product[:, : room - start])
        self.meter.workspace.commit(self.name, start, stop, seconds)
        return product


class Columns(Protocol):
    """What is multiplied: a test matrix, or a tall one."""

    def columns(self, start: int, stop: int) -> Tensor:
        """Columns start..stop."""


def blocks(count: int, block_size: int) -> Iterator[tuple[int, int]]:
    """The column ranges of ``count`` columns, ``block_size`` at a time.

    >>> list(blocks(5, 2))
    [(0, 2), (2, 4), (4, 5)]
    """
    for start in range(0, count, block_size):
        yield start, min(start + block_size, count)


def remembered(meter: Meter, name: str, columns: int, compute: Callable[[], Tensor]) -> Tensor:
    """The small result of one block of products, or what a run has kept of it; counted either way."""
    before, passes, seconds = meter.products, meter.passes, meter.seconds["products"]

    def counted() -> dict[str, Tensor]:
        found = compute()
        return {
            "found": found,
            "spent": torch.tensor([meter.passes - passes, meter.seconds["products"] - seconds], dtype=torch.float64),
        }

    kept = meter.workspace.remember(name, counted)
    if meter.products == before:
        passes, seconds = kept["spent"].tolist()
        meter.recall(columns, seconds, passes=int(passes))
    return kept["found"]


def check_hermitian(directions: TallMatrix, products: TallMatrix) -> None:
    r"""Raise NotHermitian if products Y = A X show that A is not Hermitian: X* Y must be.

    For random X the asymmetry of X\* Y is about that of A, ||A - A*||_F / ||A||_F. Costs no products; says nothing for one
    column of a real operator.
    """
    measured = asymmetry(gram(directions, products))
    allowed = allowed_asymmetry(directions.shape[0], directions.dtype)
    if measured > allowed:
        raise NotHermitian(
            f"the operator is not Hermitian: X'AX of {directions.shape[1]} random vectors differs from its adjoint by "
            f"{measured:.1e} of its norm (rounding explains {allowed:.0e}); use ssvd, or (A + A*)/2 if that is meant",
            measured,
        )


def allowed_asymmetry(size: int, dtype: torch.dtype) -> float:
    """What the rounding of products and sums over D entries may show: generous, as products of networks round too."""
    unit = torch.finfo(dtype).eps
    return max(10 * unit**0.5, 10 * unit * size**0.5)
