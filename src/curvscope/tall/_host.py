"""Tall matrices in the host's memory that are multiplied on a GPU, whose own memory they do not fit."""

from __future__ import annotations

import torch
from torch import Tensor

from curvscope.tall import _transfer as transfer
from curvscope.tall._panelled import Panelled, rows_of_panels


class OnHost(Panelled):
    """A tall matrix on the host: panels and columns that are read lie on the device, copied there while the last is in use.

    Args:
        columns: (n, D) on the CPU, a column of the matrix in each row; kept, not copied.
        device: where tensors read from it shall lie, and blocks that are written come from.
        height: rows of a panel; default as many as 32 MiB hold.

    Memory: two panels on the device and as much pinned on the host, beside the matrix; a block of columns while it is read or
    written.

    >>> W = OnHost.empty(1000, 5, torch.float32, torch.device("cpu"))
    >>> W.write(0, torch.ones(1000, 5))
    >>> W.shape, float(W.columns(2, 4).sum()), W.rows(torch.tensor([7, 3])).shape
    ((1000, 5), 2000.0, torch.Size([2, 5]))
    """

    def __init__(self, columns: Tensor, device: torch.device, *, height: int | None = None) -> None:
        self._columns, self.device, self.dtype = columns, device, columns.dtype
        self.shape = (columns.shape[1], columns.shape[0])
        self.height = height or rows_of_panels(columns.shape[0], columns.dtype.itemsize)
        self._begin()

    @classmethod
    def empty(cls, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> OnHost:
        """Room for a D x n matrix."""
        return cls(torch.empty(columns, rows, dtype=dtype, device="cpu"), device)

    def columns(self, start: int, stop: int) -> Tensor:
        """See :meth:`TallMatrix.columns`; a copy, each column contiguous."""
        return self._columns[start:stop].to(self.device, copy=True).T

    def rows(self, index: Tensor | slice) -> Tensor:
        """See :meth:`TallMatrix.rows`; rows at an index are gathered on the host."""
        if isinstance(index, slice):
            return self._range(*index.indices(self.shape[0])[:2])
        return self._columns[:, index.cpu()].T.to(self.device)

    def between(self, start: int, stop: int) -> OnHost:
        """See :meth:`TallMatrix.between`."""
        view = OnHost(self._columns[start:stop], self.device, height=self.height)
        view._begin(self._written)
        return view

    def write(self, start: int, block: Tensor) -> None:
        """See :meth:`TallMatrix.write`."""
        for number in range(self._panel_count()):
            self._changed(number)
        self._columns[start : start + block.shape[1]] = block.T

    def write_rows(self, panel: slice, block: Tensor) -> None:
        """See :meth:`TallMatrix.write_rows`; any rows."""
        first, last, _ = panel.indices(self.shape[0])
        used = self._in_use(first, last)
        for number in range(first // self.height, -(-last // self.height)):
            self._changed(number)
        self._columns[: block.shape[1], first:last] = block.T
        if used is not None:  # worked through in parts: the panel need not come again for the next one
            used[:, : block.shape[1]] = block
            self._still_right()

    def empty_like(self, columns: int) -> OnHost:
        """See :meth:`TallMatrix.empty_like`."""
        return OnHost.empty(self.shape[0], columns, self.dtype, self.device)

    def _load(self, number: int) -> Tensor:
        """See :meth:`Panelled._load`."""
        rows = self._rows_of(number)
        panel = transfer.buffer(rows.stop - rows.start, self.shape[1], self.dtype, self.device)
        panel.T.copy_(self._columns[:, rows])
        return panel
