"""Sparse signs: a test matrix whose adjoint is applied at the cost of a few additions an entry."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from curvscope.sketches.kinds import Kind, tiles
from curvscope.sketches.streams import TILE_ROWS
from curvscope.tall import TallMatrix
from curvscope.tall.algebra import small_dtype

PANEL_ROWS = 1 << 14
"""Rows multiplied at a time; keeps the sums in the matrix's own precision short."""


def strips(stop: int) -> Iterator[tuple[int, int]]:
    """(first column, width) of the strips that cover columns 0..stop.

    Two columns wide up to column 8, then a quarter to a half of what lies before: 6 strips in the first 16 columns, two
    more with every doubling (8 at 32, 10 at 64, 18 at 1024). Fixed, so that a column does not depend on how many there are.

    >>> list(strips(20))
    [(0, 2), (2, 2), (4, 2), (6, 2), (8, 4), (12, 4), (16, 8)]
    """
    start = 0
    while start < stop:
        width = max(2, (1 << start.bit_length() - 1) // 2) if start else 2
        yield start, width
        start += width


class SparseSign(Kind):
    """One entry of random sign in each row of every strip of columns, all else zero.

    A row of n columns has about 2 log2(n) - 2 entries: at least the 8 that Tropp et al. (2019, section 3.3) recommend
    from n = 32 on. A strip of width w is scaled by sqrt(w), for entries of variance 1.
    """

    name = "sparse_sign"

    def panel(self, first: int, last: int, start: int, stop: int) -> Tensor:
        """See :meth:`Kind.panel`."""
        block = torch.zeros(stop - start, last - first, dtype=self.dtype)
        for tile in range(first // TILE_ROWS, -(-last // TILE_ROWS)):
            low = tile * TILE_ROWS
            begin, end = max(first, low), min(last, low + TILE_ROWS)
            for columns, values in self._entries(tile, start, stop):
                columns, values = columns[begin - low : end - low] - start, values[begin - low : end - low]
                inside = (columns >= 0) & (columns < stop - start)
                rows = torch.arange(begin - first, end - first)[inside]
                block[columns[inside], rows] = values[inside]
        return block.T

    def adjoint_multiply(self, matrix: TallMatrix, start: int, stop: int) -> Tensor:
        """See :meth:`Kind.adjoint_multiply`; as a sparse product."""
        result = torch.zeros(stop - start, matrix.shape[1], dtype=small_dtype(self.dtype), device=matrix.device)
        for first, last in tiles(self.rows):
            entries = list(self._entries(first // TILE_ROWS, start, stop))
            for low in range(first, last, PANEL_ROWS):
                high = min(low + PANEL_ROWS, last)
                panel = slice(low - first, high - first)
                columns = torch.cat([places[panel] - start for places, _ in entries])
                values = torch.cat([signs[panel] for _, signs in entries])
                rows = torch.arange(high - low).repeat(len(entries))
                inside = (columns >= 0) & (columns < stop - start)
                if not bool(inside.all()):
                    columns, rows, values = columns[inside], rows[inside], values[inside]
                sparse = torch.sparse_coo_tensor(
                    torch.stack([columns, rows]), values, (stop - start, high - low), check_invariants=False
                ).to(matrix.device)
                result += (sparse @ matrix.rows(slice(low, high)).contiguous()).to(result.dtype)
        return result.cpu()

    def _entries(self, tile: int, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Column and value of the entry in each row of a tile, strip by strip, for the strips that meet start..stop."""
        height = min(TILE_ROWS, self.rows - tile * TILE_ROWS)
        for first, width in strips(stop):
            if first + width > start:
                drawn = self.streams.at(first, tile).integers(0, 2 * width, height, dtype=np.int64)
                signs = torch.from_numpy((drawn & 1) * 2.0 - 1.0) * width**0.5
                yield torch.from_numpy((drawn >> 1) + first), signs.to(self.dtype)
