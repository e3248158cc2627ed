"""Re-orthogonalisation against a basis in a run's store: its row panels are read and multiplied by workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from curvscope.operators.remote import received
from curvscope.parallel import Task, Workers, evenly
from curvscope.tall import InMemory, OnDisk, TallMatrix, gram, subtract

LEAST_COLUMNS = 8
"""Columns of the basis for each column of the block from which reading it costs more than sending the block."""


class Stored(NamedTuple):
    """Columns of a matrix in a store."""

    path: Path
    first: int
    last: int

    def panels(self, start: int, stop: int) -> Iterator[tuple[slice, Tensor]] | None:
        """These rows (from the beginning of a row of tiles), panel by panel, verified; None: the store is out of reach."""
        return self._read(start, stop) if self.path.exists() else None

    def _read(self, start: int, stop: int) -> Iterator[tuple[slice, Tensor]]:
        seen = OnDisk(self.path).between(self.first, self.last)
        height = seen.tiles.tile[0]
        for first in range(start, stop, height):
            last = min(first + height, stop)
            yield slice(first - start, last - start), seen.rows(slice(first, last))


class Panels:
    """Products with the panels of a stored basis: :meth:`gram` and :meth:`subtract` as those of :mod:`curvscope.tall`.

    Workers who do not reach the store, narrow bases and matrices in memory leave the work to this process.

    Cost over the wire: the block three times a pass, there twice and back once; reading the basis is divided by the number of
    workers, if their file system is up to it.
    """

    def __init__(self, workers: Workers) -> None:
        self.workers, self.reached = workers, True

    def gram(self, basis: TallMatrix, block: Tensor) -> Tensor:
        """basis* @ block, double precision on the CPU."""
        parts = self._dealt(gram_part, basis, block)
        if parts is None:
            return gram(basis, InMemory(block))
        return torch.stack([received(part) for part in parts]).sum(dim=0)

    def subtract(self, block: Tensor, basis: TallMatrix, coefficients: Tensor) -> None:
        """In place, block <- block - basis @ coefficients."""
        parts = self._dealt(subtract_part, basis, block, coefficients.numpy())
        if parts is None:
            subtract(block, basis, coefficients)
            return
        torch.cat([received(part) for part in parts], out=block)

    def _dealt(
        self, function: Callable[..., Any], basis: TallMatrix, block: Tensor, *further: np.ndarray
    ) -> list[np.ndarray] | None:
        """Return what ``function`` gives for the rows of each worker; None if this process shall do it."""
        if not (self.reached and isinstance(basis, OnDisk) and basis.shape[1] >= LEAST_COLUMNS * block.shape[1]):
            return None
        stored = Stored(basis.path.absolute(), basis.first_column, basis.first_column + basis.shape[1])
        whole, height = block.detach().cpu().numpy(), basis.tiles.tile[0]
        count = -(-len(whole) // height)
        ranges = [(i * height, min(j * height, len(whole))) for i, j in evenly(count, self.workers.count)]
        tasks = (Task((stored, start, stop, whole[start:stop], *further), stop - start) for start, stop in ranges)
        parts = list(self.workers.map(function, tasks))
        self.reached = all(part is not None for part in parts)
        return parts if self.reached else None


def gram_part(stored: Stored, start: int, stop: int, block: np.ndarray) -> np.ndarray | None:
    """basis* @ block for some rows; called in a worker."""
    panels, whole = stored.panels(start, stop), received(block)
    if panels is None:
        return None
    parts = (gram(InMemory(rows), InMemory(whole[place])) for place, rows in panels)
    return sum(parts, start=torch.zeros((), device="cpu")).numpy()


def subtract_part(stored: Stored, start: int, stop: int, block: np.ndarray, coefficients: np.ndarray) -> np.ndarray | None:
    """Block - basis @ coefficients for some rows; called in a worker."""
    panels, rest, factor = stored.panels(start, stop), received(block).clone(), received(coefficients)
    if panels is None:
        return None
    for place, rows in panels:
        subtract(rest[place], InMemory(rows), factor)
    return rest.numpy()
