"""Sparse signs: a test matrix whose adjoint is applied at the cost of a few additions an entry."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from curvscope.sketches._kinds import PANEL_ROWS, Kind, tiles
from curvscope.sketches._streams import TILE_ROWS
from curvscope.tall import TallMatrix, small_dtype

COLUMNS_AT_A_TIME = 32
"""Of a panel, added up at a time: what stays in the processor's cache."""


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
        block = torch.zeros(stop - start, last - first, dtype=self.dtype, device="cpu")
        for tile in range(first // TILE_ROWS, -(-last // TILE_ROWS)):
            low = tile * TILE_ROWS
            begin, end = max(first, low), min(last, low + TILE_ROWS)
            for columns, values in self._entries(tile, start, stop):
                columns, values = columns[begin - low : end - low] - start, values[begin - low : end - low]
                inside = (columns >= 0) & (columns < stop - start)
                rows = torch.arange(begin - first, end - first, device="cpu")[inside]
                block[columns[inside], rows] = values[inside]
        return block.T

    def adjoint_multiply(self, matrix: TallMatrix, start: int, stop: int) -> Tensor:
        """See :meth:`Kind.adjoint_multiply`; additions alone: each row of the matrix goes to one signed sum of every strip."""
        used = [(first, width) for first, width in strips(stop) if first + width > start]
        offset, count = used[0][0], sum(width for _, width in used)
        total = torch.zeros(count, matrix.shape[1], dtype=small_dtype(self.dtype), device=matrix.device)
        for first_row, last_row in tiles(self.rows):
            places = [self._drawn(first_row // TILE_ROWS, first, width) + 2 * (first - offset) for first, width in used]
            for low in range(first_row, last_row, PANEL_ROWS):
                high = min(low + PANEL_ROWS, last_row)
                here = [place[low - first_row : high - first_row].to(matrix.device) for place in places]
                block = matrix.rows(slice(low, high))
                for left in range(0, matrix.shape[1], COLUMNS_AT_A_TIME):
                    columns = slice(left, left + COLUMNS_AT_A_TIME)
                    total[:, columns] += _signed_sums(block[:, columns].contiguous(), here, count)
        scales = torch.cat([torch.full((width,), width**0.5, dtype=total.dtype, device="cpu") for _, width in used])
        return (total.cpu() * scales[:, None])[start - offset : stop - offset]

    def _drawn(self, tile: int, first: int, width: int) -> Tensor:
        """For each row of a tile, in one strip: twice the column (counted from the strip's first), plus 1 for sign +."""
        height = min(TILE_ROWS, self.rows - tile * TILE_ROWS)
        return torch.from_numpy(self.streams.at(first, tile).integers(0, 2 * width, height, dtype=np.int64))

    def _entries(self, tile: int, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Column and value of the entry in each row of a tile, strip by strip, for the strips that meet start..stop."""
        for first, width in strips(stop):
            if first + width > start:
                drawn = self._drawn(tile, first, width)
                signs = ((drawn & 1) * 2 - 1).to(torch.float64)
                yield (drawn >> 1) + first, (signs * width**0.5).to(self.dtype)


def _signed_sums(block: Tensor, places: list[Tensor], count: int) -> Tensor:
    """For each of ``count`` columns the rows of the block that have sign + there, minus those that have sign -."""
    sums = torch.zeros(2 * count, block.shape[1], dtype=block.dtype, device=block.device)
    for place in places:
        sums.index_add_(0, place, block)
    return (sums[1::2] - sums[::2]).to(small_dtype(block.dtype))
