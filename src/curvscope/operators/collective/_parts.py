"""Operators that process 0 names and all processes of a group build, each of them on its own part of the data."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from math import ceil
from typing import Any

from curvscope.errors import InvalidArgument
from curvscope.operators.collective._grouped import Grouped, checked_part
from curvscope.operators.collective._loaders import is_a_part, without_padding
from curvscope.operators.collective._processes import Processes
from curvscope.operators.objective import length, split

_own: ContextVar[tuple[int, int] | None] = ContextVar("rank and size of the group that parts are built for", default=None)


class Builders:
    """The processes of a group, which build one operator together when process 0 asks for it.

    Args:
        processes: of the group.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._number = processes.join(self)
        self._built: list[Grouped] = []  # served for as long as this lives

    def build(self, make: Callable[[], Any]) -> Grouped:
        """Return the operator of all data; called in process 0, which is doing long work.

        Args:
            make: of the operator of :func:`own_part` of the data; it is sent to the others, so that it can be pickled.

        Raises:
            InvalidArgument: the operator is none of parts of the data that add up. WorkerError: it failed in another process.
        """
        self._processes.agreed("build", self._number, make)
        return self._build(make)

    def serve(self, what: str, make: Callable[[], Any]) -> None:
        """Build what process 0 asks for."""
        self._build(make)

    def _build(self, make: Callable[[], Any]) -> Grouped:
        def part() -> Any:
            """The operator of this process's part."""
            token = _own.set((self._processes.rank, self._processes.size))
            try:
                return checked_part(make())
            finally:
                _own.reset(token)

        self._built.append(Grouped(self._processes.together(part), self._processes))
        return self._built[-1]


def own_part(data: Any) -> Any:
    """Return the batches that this process holds while it builds a part of an operator; all of them elsewhere.

    Each batch is cut into as many pieces as there are processes. What a ``DistributedSampler`` gave this process is its part.

    Raises:
        InvalidArgument: fewer pieces than processes.
    """
    own = _own.get()
    if own is None:
        return data
    if is_a_part(data):
        return without_padding(data)
    rank, size = own
    pieces = [piece for batch in data for piece in split(batch, max(1, ceil(length(batch) / size)))]
    if len(pieces) < size:
        raise InvalidArgument(f"the data have {len(pieces)} samples for {size} processes: start fewer processes")
    return pieces[rank::size]
