"""Tall matrices on disk: read panel by panel, written by columns or by panels, never wholly in memory."""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.store import Tiles, remove
from curvscope.tall.matrix import InMemory, TallMatrix

PANEL = 1 << 25
"""Bytes of a row panel, at most; two are in memory at a time, the one in use and the next."""
TILE_ROWS = (1 << 8, 1 << 16)
"""Fewest and most rows of a tile; a power of two, so that the panels of all matrices nest."""
TILE_COLUMNS = 32
SCRATCH = "scratch"
READERS = 8
"""Threads that gather rows: they wait for the disk, not for the processor."""

_reader = ThreadPoolExecutor(1, thread_name_prefix="curvscope-panels")
_numbers = itertools.count()


class OnDisk(TallMatrix):
    """A tall matrix in a directory, as an array of checked tiles (see :class:`.Tiles`).

    Columns that were written together, aligned to ``tile_columns``, are tiles of their own: different processes may write
    different column blocks at the same time, and there is nothing to merge. Every read verifies the checksums of what it
    reads. Reading panels in order reads one ahead, in a thread of its own.

    Args:
        path: what :meth:`create` made.
        device: where tensors read from it shall lie.

    Memory: two panels of at most 32 MiB; a block of columns while it is read or written.

    >>> import tempfile
    >>> W = OnDisk.create(Path(tempfile.mkdtemp()) / "W", 1000, 5, torch.float32)
    >>> W.write(0, torch.ones(1000, 5))
    >>> W.shape, float(W.columns(2, 4).sum()), W.rows(torch.tensor([7, 3])).shape
    ((1000, 5), 2000.0, torch.Size([2, 5]))
    """

    def __init__(self, path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> None:
        self._use(Tiles.open(Path(path)), torch.device(device))

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        rows: int,
        columns: int,
        dtype: torch.dtype,
        *,
        tile_columns: int = TILE_COLUMNS,
        tile_rows: int | None = None,
        device: torch.device | str = "cpu",
    ) -> OnDisk:
        """Room for a D x n matrix in the new directory ``path``; reading what was not written is an error.

        Args:
            path: of a directory that does not exist.
            rows: D.
            columns: n.
            dtype: of the entries.
            tile_columns: columns of a tile; a block of columns that starts and ends at multiples of it shares no tile.
            tile_rows: rows of a tile, a power of two; default as many as a panel may have, see :func:`rows_of_tiles`.
            device: where tensors read from it shall lie.
        """
        if rows < 1 or columns < 1 or tile_columns < 1:
            raise InvalidArgument(f"a matrix on disk of {rows} x {columns}, tiles of {tile_columns}: at least 1 of each")
        numbers = torch.empty(0, dtype=dtype).numpy().dtype
        height = rows_of_tiles(columns, numbers.itemsize) if tile_rows is None else tile_rows
        tile = (min(rows, height), min(tile_columns, columns))
        made = cls.__new__(cls)
        made._use(Tiles.create(Path(path), (rows, columns), tile, numbers), torch.device(device))
        return made

    @classmethod
    def scratch(
        cls,
        folder: Path,
        rows: int,
        columns: int,
        dtype: torch.dtype,
        *,
        tile_rows: int | None = None,
        device: torch.device | str = "cpu",
    ) -> OnDisk:
        """Room in a folder that is removed when nobody holds it any more, unless :meth:`move` gives it a place."""
        place = folder / f"{SCRATCH}-{os.getpid()}-{next(_numbers)}"
        made = cls.create(place, rows, columns, dtype, tile_rows=tile_rows, device=device)
        made._keeper = weakref.finalize(made, remove, place)
        return made

    def _use(self, tiles: Tiles, device: torch.device) -> None:
        self.tiles, self.shape, self.device = tiles, tiles.shape, device
        self.dtype = torch.from_numpy(np.empty(0, dtype=tiles.dtype)).dtype
        self._first = 0  # column of the tiles that is ours
        self._written: dict[int, int] = {}  # how often each row of tiles was written; shared with the views
        self._panel: tuple[int, int, Tensor] | None = None  # row of tiles, its count above, content
        self._next: tuple[int, int, Future[Tensor]] | None = None
        self._waiting: Tensor | None = None  # the beginning of a row of tiles that is written in parts
        self._next_row = 0
        self._keeper: object = None

    @property
    def path(self) -> Path:
        """The directory."""
        return self.tiles.path

    @property
    def first_column(self) -> int:
        """The column of the stored array that is the first of this view."""
        return self._first

    # --- reading ----------------------------------------------------------------------------------------------------------

    def columns(self, start: int, stop: int) -> Tensor:
        """See :meth:`TallMatrix.columns`; a copy, each column contiguous."""
        start, stop, _ = slice(start, stop).indices(self.shape[1])
        block = torch.empty(max(0, stop - start), self.shape[0], dtype=self.dtype)
        for row in range(self._tile_rows_count()):
            self._read(row, start, stop, block[:, self._rows_of(row)])
        return block.T.to(self.device)

    def rows(self, index: Tensor | slice) -> Tensor:
        """See :meth:`TallMatrix.rows`; an index reads and verifies the slabs of tiles that hold its rows, each once."""
        if isinstance(index, slice):
            return self._range(*index.indices(self.shape[0])[:2])
        wanted = index.cpu()
        wanted = torch.where(wanted < 0, wanted + self.shape[0], wanted)
        found = torch.empty(len(wanted), self.shape[1], dtype=self.dtype)
        home = wanted // self.tiles.tile[0]
        with ThreadPoolExecutor(READERS) as readers:
            for _ in readers.map(lambda row: self._gather(row, wanted, home == row, found), home.unique().tolist()):
                pass
        return found.to(self.device)

    def _gather(self, row: int, wanted: Tensor, here: Tensor, found: Tensor) -> None:
        """Read the rows ``wanted[here]``, which lie in this row of tiles, into their place in ``found``."""
        index = (wanted[here] - row * self.tiles.tile[0]).numpy()
        block = np.empty((len(index), self.shape[1]), dtype=self.tiles.dtype)
        for column in self._columns_of_tiles(0, self.shape[1]):
            first, last, begin = self._share(column, 0, self.shape[1])
            block[:, first:last] = self.tiles.read_rows(row, column, index)[:, begin : begin + last - first]
        found[here] = torch.from_numpy(block)

    def panels(self, most_rows: int | None = None) -> Iterator[slice]:
        """Row ranges as in :meth:`TallMatrix.panels`: a row of tiles each, or an even part of one."""
        step = self.tiles.tile[0] if most_rows is None else min(most_rows, self.tiles.tile[0])
        for row in range(self._tile_rows_count()):
            whole = self._rows_of(row)
            for start in range(whole.start, whole.stop, step):
                yield slice(start, min(start + step, whole.stop))

    def between(self, start: int, stop: int) -> OnDisk:
        """See :meth:`TallMatrix.between`."""
        start, stop, _ = slice(start, stop).indices(self.shape[1])
        view = OnDisk.__new__(OnDisk)
        view._use(self.tiles, self.device)
        view.shape, view._first = (self.shape[0], max(0, stop - start)), self._first + start
        view._written, view._keeper = self._written, self
        return view

    def _range(self, start: int, stop: int) -> Tensor:
        height = self.tiles.tile[0]
        parts = []
        while start < stop:
            row = start // height
            end = min(stop, (row + 1) * height)
            parts.append(self._panel_at(row)[start - row * height : end - row * height])
            start = end
        if not parts:
            return torch.empty(0, self.shape[1], dtype=self.dtype, device=self.device)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _panel_at(self, row: int) -> Tensor:
        """The row of tiles that was read last, or was read ahead, or is read now; and the next one is begun."""
        if self._panel is None or self._panel[:2] != self._version(row):
            ahead, self._next, self._panel = self._next, None, None
            panel = ahead[2].result() if ahead and ahead[:2] == self._version(row) else self._load(row)
            if row + 1 < self._tile_rows_count():
                self._next = (*self._version(row + 1), _reader.submit(self._load, row + 1))
            self._panel = (*self._version(row), panel.to(self.device))
        return self._panel[2]

    def _version(self, row: int) -> tuple[int, int]:
        return row, self._written.get(row, 0)

    def _load(self, row: int) -> Tensor:
        rows = self._rows_of(row)
        panel = torch.empty(self.shape[1], rows.stop - rows.start, dtype=self.dtype)
        self._read(row, 0, self.shape[1], panel)
        return panel.T

    def _read(self, row: int, start: int, stop: int, target: Tensor) -> None:
        """Columns start..stop of a row of tiles into the (stop - start, rows) target."""
        into = target.numpy()
        for column in self._columns_of_tiles(start, stop):
            first, last, begin = self._share(column, start, stop)
            self.tiles.read(row, column, begin, into[first:last])

    def _columns_of_tiles(self, start: int, stop: int) -> range:
        """The columns of tiles that hold columns start..stop."""
        width = self.tiles.tile[1]
        return range((self._first + start) // width, -(-(self._first + stop) // width))

    def _share(self, column: int, start: int, stop: int) -> tuple[int, int, int]:
        """Which of the columns start..stop a column of tiles has, counted from ``start``, and where they begin in the tile."""
        begin = column * self.tiles.tile[1] - self._first
        first, last = max(start, begin), min(stop, begin + self.tiles.tile[1])
        return first - start, last - start, first - begin

    # --- writing ----------------------------------------------------------------------------------------------------------

    def write(self, start: int, block: Tensor) -> None:
        """See :meth:`TallMatrix.write`; a tile that is written in part keeps its other columns."""
        for row in range(self._tile_rows_count()):
            self._write(row, start, block[self._rows_of(row)])

    def write_rows(self, panel: slice, block: Tensor) -> None:
        """See :meth:`TallMatrix.write_rows`; parts of a row of tiles wait for the others, which must follow in order."""
        first, last, _ = panel.indices(self.shape[0])
        height = self.tiles.tile[0]
        while first < last:
            row = first // height
            here = self._rows_of(row)
            end = min(last, here.stop)
            part, block = block[: end - first], block[end - first :]
            if (first, end) == (here.start, here.stop):
                self._write(row, 0, part)
            else:
                self._collect(row, first, part)
            first = end

    def _collect(self, row: int, first: int, part: Tensor) -> None:
        """Keep a part of a row of tiles; write the row when it is complete."""
        here = self._rows_of(row)
        if first == here.start:
            self._waiting = torch.empty(part.shape[1], here.stop - here.start, dtype=self.dtype).T
            self._next_row = first
        if self._waiting is None or first != self._next_row or part.shape[1] != self._waiting.shape[1]:
            raise InvalidArgument(
                f"rows from {first}: panels on disk are written in order, each row of {self.tiles.tile[0]} from its beginning"
            )
        self._next_row = first + len(part)
        self._waiting[first - here.start : self._next_row - here.start] = part
        if self._next_row == here.stop:
            self._write(row, 0, self._waiting)
            self._waiting = None

    def _write(self, row: int, start: int, block: Tensor) -> None:
        """Rows of one row of tiles, columns from ``start`` on."""
        self._written[row] = self._written.get(row, 0) + 1
        height, width = self.tiles.tile
        stop = start + block.shape[1]
        content = block.detach().to("cpu", self.dtype).numpy().T
        for column in self._columns_of_tiles(start, stop):
            first, last, begin = self._share(column, start, stop)
            whole = begin == 0 and last - first == min(width, self.tiles.shape[1] - column * width)
            tile = np.zeros((width, height), dtype=self.tiles.dtype)
            if not whole and self.tiles.file(row, column).exists():
                self.tiles.read(row, column, 0, tile)
            tile[begin : begin + last - first, : content.shape[1]] = content[first:last]
            self.tiles.write(row, column, tile)

    # --- its place --------------------------------------------------------------------------------------------------------

    def empty_like(self, columns: int) -> OnDisk:
        """See :meth:`TallMatrix.empty_like`: a :meth:`scratch` matrix beside this one."""
        height = self.tiles.tile[0]
        return OnDisk.scratch(self.path.parent, self.shape[0], columns, self.dtype, tile_rows=height, device=self.device)

    def grow(self, columns: int) -> OnDisk:
        """The same matrix with room for more columns."""
        self.tiles.grow(columns)
        return OnDisk(self.path, device=self.device)

    def move(self, path: str | os.PathLike[str]) -> OnDisk:
        """Put it at ``path``, where it stays; what lay there is removed. Returns the matrix at its new place."""
        target = Path(path)
        old = target.with_name(f"{SCRATCH}-{os.getpid()}-{next(_numbers)}")
        if target.exists():
            target.rename(old)
        self.path.rename(target)
        if isinstance(self._keeper, weakref.finalize):
            self._keeper.detach()
        remove(old)
        return OnDisk(target, device=self.device)

    def verify(self, start: int, stop: int) -> None:
        """Read all tiles of columns start..stop.

        Raises:
            DamagedData: the first that is missing, truncated or altered.
        """
        nothing = np.empty((0, 0), dtype=self.tiles.dtype)
        for column in self._columns_of_tiles(start, stop):
            for row in range(self._tile_rows_count()):
                self.tiles.read(row, column, 0, nothing)

    def _tile_rows_count(self) -> int:
        return -(-self.shape[0] // self.tiles.tile[0])

    def _rows_of(self, row: int) -> slice:
        height = self.tiles.tile[0]
        return slice(row * height, min((row + 1) * height, self.shape[0]))


class Mirrored(InMemory):
    """A matrix in memory whose columns are on disk as well, as soon as they are written.

    Args:
        disk: where; made for as many columns.
        filled: how many of its columns to begin with are read.
    """

    def __init__(self, disk: OnDisk, filled: int = 0) -> None:
        super().__init__(InMemory.empty(*disk.shape, disk.dtype, disk.device).tensor)
        self.disk = disk
        if filled:
            self.tensor[:, :filled] = disk.columns(0, filled)

    def write(self, start: int, block: Tensor) -> None:
        """See :meth:`TallMatrix.write`; both."""
        super().write(start, block)
        self.disk.write(start, block)


def rows_of_tiles(columns: int, itemsize: int) -> int:
    """Rows of a tile: as many as a panel of all columns may have, a power of two.

    >>> rows_of_tiles(300, 4), rows_of_tiles(1, 4)
    (16384, 65536)
    """
    least, most = TILE_ROWS
    fitting = max(1, PANEL // (columns * itemsize))
    return max(least, min(most, 1 << (fitting.bit_length() - 1)))


def remove_scratch(folder: Path) -> None:
    """Remove the scratch matrices that killed processes left in a folder. Nobody may be working there now."""
    for left in folder.glob(f"{SCRATCH}-*"):
        remove(left)
