"""What a kind of test matrix must do, and the kinds whose entries are independent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from curvscope.sketches._streams import TILE_ROWS, Streams, in_parallel
from curvscope.tall import TallMatrix, small_dtype

PANEL_ROWS, COLUMNS_AT_A_TIME = 1 << 13, 64
"""Rows of a matrix multiplied at a time, a part of a tile: few, so that a matrix on disk is not read in large pieces, and its
sums in its own precision are short; and columns of the test matrix that are made for them at a time."""


class Kind(ABC):
    """One kind of test matrix, on the CPU: blocks of it, and its adjoint applied.

    Args:
        rows: D.
        streams: its random numbers.
        dtype: of the entries.
    """

    real = True  # whether it exists for real dtypes
    name: str

    def __init__(self, rows: int, streams: Streams, dtype: torch.dtype) -> None:
        self.rows, self.streams, self.dtype = rows, streams, dtype

    @classmethod
    def row_bytes(cls, itemsize: int) -> int:
        """Memory for each of the D rows, kept or needed to apply it, in a solve with two of these; 0: nothing that counts."""
        return 0

    @abstractmethod
    def panel(self, first: int, last: int, start: int, stop: int) -> Tensor:
        """Rows first..last of columns start..stop, (last - first, stop - start), columns contiguous."""

    @abstractmethod
    def adjoint_multiply(self, matrix: TallMatrix, start: int, stop: int) -> Tensor:
        """(Columns start..stop)* @ matrix in double precision on the CPU, :data:`PANEL_ROWS` at a time or a few columns."""


def tiles(rows: int) -> Iterator[tuple[int, int]]:
    """The row ranges that the counter streams serve."""
    for first in range(0, rows, TILE_ROWS):
        yield first, min(first + TILE_ROWS, rows)


class IndependentEntries(Kind):
    """Independent entries of mean 0 and variance 1; each column and tile of rows has a stream of its own."""

    def panel(self, first: int, last: int, start: int, stop: int) -> Tensor:
        """See :meth:`Kind.panel`. Numbers are drawn in float64 and rounded."""
        block = np.empty((stop - start, last - first), dtype=torch.empty(0, dtype=self.dtype, device="cpu").numpy().dtype)

        def fill(i: int) -> None:
            """Draw one column, tile by tile."""
            for tile in range(first // TILE_ROWS, -(-last // TILE_ROWS)):
                low = tile * TILE_ROWS
                begin, end = max(first, low), min(last, low + TILE_ROWS)
                drawn = self._draw(self.streams.at(start + i, tile), end - low)
                block[i, begin - first : end - first] = drawn[begin - low :]

        in_parallel(fill, stop - start, block.size)
        return torch.from_numpy(block).T

    def adjoint_multiply(self, matrix: TallMatrix, start: int, stop: int) -> Tensor:
        """See :meth:`Kind.adjoint_multiply`; every stream continues where it was left, so that no whole tile is made."""
        result = torch.zeros(stop - start, matrix.shape[1], dtype=small_dtype(self.dtype), device=matrix.device)
        for first, last in tiles(self.rows):
            streams = [self.streams.at(column, first // TILE_ROWS) for column in range(start, stop)]
            for low in range(first, last, PANEL_ROWS):
                block = matrix.rows(slice(low, min(low + PANEL_ROWS, last)))
                for left in range(0, stop - start, COLUMNS_AT_A_TIME):
                    columns = slice(left, left + COLUMNS_AT_A_TIME)
                    drawn = self._drawn(streams[columns], len(block)).to(matrix.device)
                    result[columns] += drawn.conj() @ block  # the sums over panels in double
                del block  # before the next one is read
        return result.cpu()

    def _drawn(self, streams: list[np.random.Generator], rows: int) -> Tensor:
        """The next ``rows`` entries of some streams, (len(streams), rows)."""
        block = np.empty((len(streams), rows), dtype=torch.empty(0, dtype=self.dtype, device="cpu").numpy().dtype)

        def fill(i: int) -> None:
            """Draw on in one column's stream."""
            block[i] = self._draw(streams[i], rows)

        in_parallel(fill, len(streams), block.size)
        return torch.from_numpy(block)

    @abstractmethod
    def _draw(self, stream: np.random.Generator, rows: int) -> np.ndarray: ...


class Gaussian(IndependentEntries):
    """Standard normal; complex: independent real and imaginary parts of variance 1/2."""

    name = "gaussian"

    def _draw(self, stream: np.random.Generator, rows: int) -> np.ndarray:
        if not self.dtype.is_complex:
            return stream.standard_normal(rows)
        drawn: np.ndarray = stream.standard_normal((rows, 2)).view(np.complex128)[:, 0] * 0.5**0.5
        return drawn


class Rademacher(IndependentEntries):
    """+1 or -1."""

    name = "rademacher"

    def _draw(self, stream: np.random.Generator, rows: int) -> np.ndarray:
        return stream.integers(0, 2, rows, dtype=np.int8) * 2.0 - 1.0


class Phase(IndependentEntries):
    """Uniform on the unit circle of the complex plane."""

    name = "phase"
    real = False

    def _draw(self, stream: np.random.Generator, rows: int) -> np.ndarray:
        drawn: np.ndarray = np.exp(2j * np.pi * stream.random(rows))
        return drawn
