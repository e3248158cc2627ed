"""Operators that process 0 names and all processes of a group build, each of them on its own part of the data."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch

from curvscope.errors import InvalidArgument
from curvscope.operators.collective._grouped import Grouped, checked_part
from curvscope.operators.collective._loaders import is_a_part, without_padding
from curvscope.operators.collective._processes import Processes
from curvscope.operators.fingerprint import fingerprint
from curvscope.operators.objective import as_batches, length, named_criterion, split, takes_model, tensors_of


@dataclass
class _Place:
    """Place of this process in the group that parts are built for.

    Attributes:
        rank: of this process.
        size: number of processes.
        whole: digest of all data in their order, of which a part was taken; empty where nothing was divided.
    """

    rank: int
    size: int
    whole: str = ""


_own: ContextVar[_Place | None] = ContextVar("place of this process in the group that parts are built for", default=None)


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
            InvalidArgument: the operator is none of parts of the data that add up, or the processes have other data.
                WorkerError: it failed in another process.
        """
        self._processes.agreed("build", self._number, make)
        return self._build(make)

    def serve(self, what: str, make: Callable[[], Any]) -> None:
        """Build what process 0 asks for."""
        self._build(make)

    def _build(self, make: Callable[[], Any]) -> Grouped:
        place = _Place(self._processes.rank, self._processes.size)

        def part() -> Any:
            """The operator of this process's part."""
            token = _own.set(place)
            try:
                return checked_part(make())
            finally:
                _own.reset(token)

        local = self._processes.together(part)
        wholes = self._processes.gather(place.whole)
        for rank, theirs in enumerate(wholes):
            if theirs != wholes[0]:
                raise InvalidArgument(
                    f"process {rank} of the group has other data than process 0, or the same in another order, so their parts "
                    "are not parts of one whole: draw with a fixed seed, and shuffle with torch's generator or not at all"
                )
        self._built.append(Grouped(local, self._processes))
        return self._built[-1]


def own_part(data: Any, loss: Any) -> Any:
    """Return the batches that this process holds while it builds a part of an operator; all of them elsewhere.

    Each batch is cut into as many pieces as there are processes. What a ``DistributedSampler`` gave this process is its part.
    Loaders that shuffle with torch's generator do it in the same order in all processes.

    Args:
        data: as :func:`curvscope.hessian` takes them; all of them, or a loader with a ``DistributedSampler``.
        loss: whose form says whether two tensors are one batch.

    Cost: a pass over the data and a digest of them.

    Raises:
        InvalidArgument: fewer pieces than processes.
    """
    own = _own.get()
    if own is None:
        return data
    if is_a_part(data):
        return without_padding(data)
    criterion = named_criterion(loss)
    pieces, digests = [], []
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        for batch in as_batches(data, pairs=callable(criterion) and not takes_model(criterion)):
            digests.append(fingerprint(tensors_of(batch)))
            pieces += list(split(batch, _piece(length(batch), own.size)))
    if len(pieces) < own.size:
        raise InvalidArgument(f"the data make {len(pieces)} pieces for {own.size} processes: start fewer processes")
    own.whole = fingerprint(digests)
    return pieces[own.rank :: own.size]


def _piece(samples: int, processes: int) -> int:
    """Return the most samples of a piece of a batch, so that every process gets one if there are as many samples.

    >>> [_piece(samples, 4) for samples in (3, 5, 8, 100)]
    [1, 1, 2, 25]
    """
    most = max(1, ceil(samples / processes))
    return most if ceil(samples / most) >= processes else max(1, samples // processes)
