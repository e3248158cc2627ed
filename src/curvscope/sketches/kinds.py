"""What a kind of test matrix must do, and the kinds whose entries are independent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from curvscope.sketches.streams import TILE_ROWS, Streams, in_parallel
from curvscope.tall import TallMatrix
from curvscope.tall.algebra import small_dtype

COLUMNS_AT_A_TIME = 64
"""Columns of a test matrix made at a time when it is applied panel by panel."""


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

    @abstractmethod
    def panel(self, first: int, last: int, start: int, stop: int) -> Tensor:
        """Rows first..last of columns start..stop, (last - first, stop - start), columns contiguous."""

    def adjoint_multiply(self, matrix: TallMatrix, start: int, stop: int) -> Tensor:
        """(Columns start..stop)* @ matrix in double precision on the CPU, panel by panel."""
        result = torch.zeros(stop - start, matrix.shape[1], dtype=small_dtype(self.dtype))
        for first, last in tiles(self.rows):
            block = matrix.rows(slice(first, last))
            for low in range(start, stop, COLUMNS_AT_A_TIME):
                high = min(low + COLUMNS_AT_A_TIME, stop)
                columns = self.panel(first, last, low, high).to(matrix.device)
                result[low - start : high - start] += _product(columns, block).cpu()
        return result


def tiles(rows: int) -> Iterator[tuple[int, int]]:
    """The row ranges that the counter streams serve."""
    for first in range(0, rows, TILE_ROWS):
        yield first, min(first + TILE_ROWS, rows)


def _product(columns: Tensor, block: Tensor, most_rows: int = 1 << 14) -> Tensor:
    """columns* @ block, summed in double: long single-precision sums lose digits."""
    total = torch.zeros(columns.shape[1], block.shape[1], dtype=small_dtype(columns.dtype), device=columns.device)
    for low in range(0, len(block), most_rows):
        total += (columns[low : low + most_rows].mH @ block[low : low + most_rows]).to(total.dtype)
    return total


class IndependentEntries(Kind):
    """Independent entries of mean 0 and variance 1; each column and tile of rows has a stream of its own."""

    def panel(self, first: int, last: int, start: int, stop: int) -> Tensor:
        """See :meth:`Kind.panel`. Numbers are drawn in float64 and rounded."""
        block = np.empty((stop - start, last - first), dtype=torch.empty(0, dtype=self.dtype).numpy().dtype)

        def fill(i: int) -> None:
            for tile in range(first // TILE_ROWS, -(-last // TILE_ROWS)):
                low = tile * TILE_ROWS
                begin, end = max(first, low), min(last, low + TILE_ROWS)
                drawn = self._draw(self.streams.at(start + i, tile), end - low)
                block[i, begin - first : end - first] = drawn[begin - low :]

        in_parallel(fill, stop - start, block.size)
        return torch.from_numpy(block).T

    @abstractmethod
    def _draw(self, stream: np.random.Generator, rows: int) -> np.ndarray: ...


class Gaussian(IndependentEntries):
    """Standard normal; complex: independent real and imaginary parts of variance 1/2."""

    name = "gaussian"

    def _draw(self, stream: np.random.Generator, rows: int) -> np.ndarray:
        if not self.dtype.is_complex:
            return stream.standard_normal(rows)
        return stream.standard_normal((rows, 2)).view(np.complex128)[:, 0] * 0.5**0.5


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
        return np.exp(2j * np.pi * stream.random(rows))
