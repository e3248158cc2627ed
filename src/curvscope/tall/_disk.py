"""Tall matrices on disk: read panel by panel, written by columns or by panels, never wholly in memory."""

from __future__ import annotations

import contextlib
import itertools
import os
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import DamagedData, InvalidArgument
from curvscope.store import METADATA, Tiles, remove, synchronise
from curvscope.tall import _transfer as transfer
from curvscope.tall._matrix import TallMatrix, copy
from curvscope.tall._panelled import Panelled, rows_of_panels

TILE_COLUMNS = 32
SCRATCH = "scratch"
READERS = 8
"""Threads that gather rows: they wait for the disk, not for the processor."""

_numbers = itertools.count()


class OnDisk(Panelled):
    """A tall matrix in a directory, as an array of checked tiles (see :class:`.Tiles`).

    Columns that were written together, aligned to ``tile_columns``, are tiles of their own: different processes may write
    different column blocks at the same time, and there is nothing to merge. Every read verifies the checksums of what it
    reads. A panel is a row of tiles.

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
            tile_rows: rows of a tile, a power of two; default as many as a panel may have, see :func:`.rows_of_panels`.
            device: where tensors read from it shall lie.
        """
        if rows < 1 or columns < 1 or tile_columns < 1:
            raise InvalidArgument(f"a matrix on disk of {rows} x {columns}, tiles of {tile_columns}: at least 1 of each")
        numbers = torch.empty(0, dtype=dtype, device="cpu").numpy().dtype
        height = rows_of_panels(columns, numbers.itemsize) if tile_rows is None else tile_rows
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

    def _use(self, tiles: Tiles, device: torch.device, written: dict[int, int] | None = None) -> None:
        self.tiles, self.shape, self.device, self.height = tiles, tiles.shape, device, tiles.tile[0]
        self.dtype = torch.from_numpy(np.empty(0, dtype=tiles.dtype)).dtype
        self._first = 0  # column of the tiles that is ours
        self._begin(written)
        self._waiting: Tensor | None = None  # the beginning of a row of tiles that is written in parts
        self._next_row = 0
        self._keeper: object = None

    @property
    def path(self) -> Path:
        """The directory."""
        return self.tiles.path

    @property
    def mark(self) -> str:
        """The name of the stored matrix, in each of its tiles; empty for matrices of earlier versions."""
        return self.tiles.mark

    @property
    def first_column(self) -> int:
        """The column of the stored array that is the first of this view."""
        return self._first

    # --- reading ----------------------------------------------------------------------------------------------------------

    def columns(self, start: int, stop: int) -> Tensor:
        """See :meth:`TallMatrix.columns`; a copy, each column contiguous."""
        start, stop, _ = slice(start, stop).indices(self.shape[1])
        block = torch.empty(max(0, stop - start), self.shape[0], dtype=self.dtype, device="cpu")
        for row in range(self._panel_count()):
            self._read(row, start, stop, block[:, self._rows_of(row)])
        return block.T.to(self.device)

    def rows(self, index: Tensor | slice) -> Tensor:
        """See :meth:`TallMatrix.rows`; an index reads and verifies the slabs of tiles that hold its rows, each once."""
        if isinstance(index, slice):
            return self._range(*index.indices(self.shape[0])[:2])
        wanted = index.cpu()
        wanted = torch.where(wanted < 0, wanted + self.shape[0], wanted)
        found = torch.empty(len(wanted), self.shape[1], dtype=self.dtype, device="cpu")
        home = wanted // self.height
        with ThreadPoolExecutor(READERS) as readers:
            for _ in readers.map(lambda row: self._gather(row, wanted, home == row, found), home.unique().tolist()):
                pass
        return found.to(self.device)

    def _gather(self, row: int, wanted: Tensor, here: Tensor, found: Tensor) -> None:
        """Read the rows ``wanted[here]``, which lie in this row of tiles, into their place in ``found``."""
        index = (wanted[here] - row * self.height).numpy()
        block = np.empty((len(index), self.shape[1]), dtype=self.tiles.dtype)
        for column in self._columns_of_tiles(0, self.shape[1]):
            first, last, begin = self._share(column, 0, self.shape[1])
            block[:, first:last] = self.tiles.read_rows(row, column, index)[:, begin : begin + last - first]
        found[here] = torch.from_numpy(block)

    def between(self, start: int, stop: int) -> OnDisk:
        """See :meth:`TallMatrix.between`."""
        start, stop, _ = slice(start, stop).indices(self.shape[1])
        view = OnDisk.__new__(OnDisk)
        view._use(self.tiles, self.device, self._written)
        view.shape, view._first, view._keeper = (self.shape[0], max(0, stop - start)), self._first + start, self
        return view

    def _load(self, number: int) -> Tensor:
        """See :meth:`Panelled._load`."""
        rows = self._rows_of(number)
        panel = transfer.buffer(rows.stop - rows.start, self.shape[1], self.dtype, self.device)
        self._read(number, 0, self.shape[1], panel.T)
        return panel

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
        """Return the part of columns start..stop in a column of tiles, counted from ``start``, and its begin in the tile."""
        begin = column * self.tiles.tile[1] - self._first
        first, last = max(start, begin), min(stop, begin + self.tiles.tile[1])
        return first - start, last - start, first - begin

    # --- writing ----------------------------------------------------------------------------------------------------------

    def write(self, start: int, block: Tensor) -> None:
        """See :meth:`TallMatrix.write`; a tile that is written in part keeps its other columns."""
        for row in range(self._panel_count()):
            self._write(row, start, block[self._rows_of(row)])

    def write_rows(self, panel: slice, block: Tensor) -> None:
        """See :meth:`TallMatrix.write_rows`; parts of a row of tiles wait for the others, which must follow in order."""
        first, last, _ = panel.indices(self.shape[0])
        height = self.height
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
            self._waiting = torch.empty(part.shape[1], here.stop - here.start, dtype=self.dtype, device="cpu").T
            self._next_row = first
        if self._waiting is None or first != self._next_row or part.shape[1] != self._waiting.shape[1]:
            raise InvalidArgument(
                f"rows from {first}: panels on disk are written in order, each row of {self.height} from its beginning"
            )
        self._next_row = first + len(part)
        self._waiting[first - here.start : self._next_row - here.start] = part
        if self._next_row == here.stop:
            self._write(row, 0, self._waiting)
            self._waiting = None

    def _write(self, row: int, start: int, block: Tensor) -> None:
        """Rows of one row of tiles, columns from ``start`` on."""
        self._changed(row)
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
            # A tile that is there may hold columns that a saved state needs: it goes when the new one is on the device.
            self.tiles.write(row, column, tile, durable=not self._is_scratch and self.tiles.file(row, column).exists())

    @property
    def _is_scratch(self) -> bool:
        keeper = self._keeper
        return keeper._is_scratch if isinstance(keeper, OnDisk) else isinstance(keeper, weakref.finalize)

    def synchronise(self, start: int, stop: int) -> None:
        """Return when columns start..stop are on the device: their tiles, and the folders that name them.

        A tile that this host does not see (yet) is left to its writer: reading finds what is missing.
        """
        folders = {self.path / "c", self.path, self.path.parent, self.path.parent.parent}
        for column in self._columns_of_tiles(start, stop):
            for row in range(self._panel_count()):
                with contextlib.suppress(FileNotFoundError):
                    synchronise(file := self.tiles.file(row, column))
                    folders.add(file.parent)
        for place in (self.path / METADATA, *sorted(folders, reverse=True)):
            with contextlib.suppress(FileNotFoundError):
                synchronise(place)

    def forget(self, columns: int) -> None:
        """Remove the tiles that hold none of the first ``columns``: what a power failure tore must not be read again."""
        width = self.tiles.tile[1]
        for column in range(-(-columns // width), -(-self.tiles.shape[1] // width)):
            for row in range(self._panel_count()):
                self.tiles.file(row, column).unlink(missing_ok=True)

    # --- its place --------------------------------------------------------------------------------------------------------

    def empty_like(self, columns: int) -> OnDisk:
        """See :meth:`TallMatrix.empty_like`: a :meth:`scratch` matrix beside this one."""
        return OnDisk.scratch(self.path.parent, self.shape[0], columns, self.dtype, tile_rows=self.height, device=self.device)

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

    def check_complete(self) -> None:
        """Make sure that there are as many tiles as the shape says, before anything is made that is as large.

        Raises:
            DamagedData: some are missing, or of another size. Their content is not read: see :meth:`verify`.
        """
        rows, columns = self._panel_count(), -(-self.tiles.shape[1] // self.tiles.tile[1])
        place = self.path / "c"
        found = sum(1 for _ in place.iterdir()) if place.is_dir() else 0
        if rows > found:
            raise DamagedData(
                f"{self.path} should have {rows} rows of tiles, {found} are there: put them back, or compute it again"
            )
        if rows and columns:
            self.tiles.check_size(rows - 1, columns - 1)

    def verify(self, start: int, stop: int) -> None:
        """Read all tiles of columns start..stop.

        Raises:
            DamagedData: the first that is missing, truncated or altered.
        """
        nothing = np.empty((0, 0), dtype=self.tiles.dtype)
        for column in self._columns_of_tiles(start, stop):
            for row in range(self._panel_count()):
                self.tiles.read(row, column, 0, nothing)


class Mirrored(TallMatrix):
    """A matrix in memory whose columns are on disk as well, as soon as they are written.

    Args:
        memory: room for it, of the same shape.
        disk: where it is as well.
        filled: how many of the columns on disk are read to begin with.
    """

    def __init__(self, memory: TallMatrix, disk: OnDisk, filled: int = 0) -> None:
        self.memory, self.disk = memory, disk
        self.shape, self.dtype, self.device = memory.shape, memory.dtype, memory.device
        if filled:
            copy(disk.leading(filled), memory)

    def columns(self, start: int, stop: int) -> Tensor:
        """See :meth:`TallMatrix.columns`; from memory."""
        return self.memory.columns(start, stop)

    def rows(self, index: Tensor | slice) -> Tensor:
        """See :meth:`TallMatrix.rows`; from memory."""
        return self.memory.rows(index)

    def between(self, start: int, stop: int) -> TallMatrix:
        """See :meth:`TallMatrix.between`; what is in memory, to be read."""
        return self.memory.between(start, stop)

    def write(self, start: int, block: Tensor) -> None:
        """See :meth:`TallMatrix.write`; both."""
        self.memory.write(start, block)
        self.disk.write(start, block)

    def write_rows(self, panel: slice, block: Tensor) -> None:
        """See :meth:`TallMatrix.write_rows`; in memory, until another matrix on disk takes its place."""
        self.memory.write_rows(panel, block)

    def empty_like(self, columns: int) -> TallMatrix:
        """See :meth:`TallMatrix.empty_like`; in memory."""
        return self.memory.empty_like(columns)


def remove_scratch(folder: Path) -> None:
    """Remove the scratch matrices that killed processes left in a folder. Nobody may be working there now."""
    for left in folder.glob(f"{SCRATCH}-*"):
        remove(left)
