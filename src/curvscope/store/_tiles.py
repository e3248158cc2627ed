"""Files of one matrix: a Zarr v3 array of uncompressed tiles in slabs, each with its checksum, written whole or not at all.

A tile is one Zarr shard, some columns of a range of rows; its slabs are the chunks, a few of these rows each, column after
column, little-endian, with four bytes of CRC-32C behind it. Before them the file says which tile of which matrix it is, so that
tiles that were exchanged, or are another matrix's, are found; the description ``zarr.json`` has a checksum. Any Zarr v3 reader
opens the array; we read and write the tiles ourselves, straight between file and buffer, because nothing may pass unverified:
Zarr takes a missing chunk for zeros. A row is had, verified, for the price of its slab.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, TransposeCodec

from curvscope.errors import DamagedData, InvalidArgument, RunNotFound
from curvscope.store._files import CHECKSUM_BYTES, Draft, checksum, read_json, write_text
from curvscope.store._seals import digest_of, new_mark
from curvscope.store._untrusted import open_plain, shown

METADATA, OURS = "zarr.json", "curvscope"
HEAD_BYTES = 16 + 6 + 6 + CHECKSUM_BYTES
"""Of a tile's mark and place, before its slabs."""
SLAB_BYTES = 1 << 13
"""Bytes of a slab, about: what a disk reads in one go anyway, and enough that its checksum costs little."""
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError, MemoryError, RuntimeError)
"""What Zarr raises for descriptions that are none, were altered, or were made to harm."""
FEWEST_ROWS = 64
"""Rows of a slab, at least: its columns are copied one by one."""


@dataclass(frozen=True)
class Tiles:
    """The tiles of a D x n matrix.

    Attributes:
        path: the directory.
        shape: (D, n).
        tile: rows and columns of a tile; those at the far edges are filled up with zeros.
        slab: rows of a slab; they divide those of a tile.
        dtype: of the entries.
        mark: name of the matrix, in each of its tiles; empty for matrices of earlier versions, whose tiles are not marked.
    """

    path: Path
    shape: tuple[int, int]
    tile: tuple[int, int]
    slab: int
    dtype: np.dtype
    mark: str = ""

    @classmethod
    def create(cls, path: Path, shape: tuple[int, int], tile: tuple[int, int], dtype: np.dtype) -> Tiles:
        """A new array without tiles; the rows of a tile are rounded up to whole slabs."""
        slab = min(tile[0], rows_of_slabs(tile[1], dtype.itemsize))
        tile = (-(-tile[0] // slab) * slab, tile[1])
        with Draft(path) as draft:
            zarr.create_array(
                draft,
                shape=shape,
                shards=tile,
                chunks=(slab, tile[1]),
                dtype=dtype,
                filters=[TransposeCodec(order=(1, 0))],
                serializer=BytesCodec(endian="little"),
                compressors=[Crc32cCodec()],
            )
            mark = new_mark()
            _describe(draft, read_json(draft / METADATA), mark)
        return cls(path, shape, tile, slab, np.dtype(dtype), mark)

    @classmethod
    def open(cls, path: Path) -> Tiles:
        """The array that :meth:`create` made.

        Raises:
            RunNotFound: there is none. DamagedData: its description cannot be read, or is another program's.
        """
        if not (path / METADATA).is_file():
            raise RunNotFound(f"{path} holds no matrix (no {METADATA}): it was removed, or never written")
        try:
            array = zarr.open_array(path, mode="r")
        except UNREADABLE as error:
            raise DamagedData(f"{path / METADATA} is damaged ({shown(str(error))})") from error
        codecs = [type(codec) for shard in getattr(array.metadata, "codecs", ()) for codec in getattr(shard, "codecs", [shard])]
        if array.shards is None or codecs != [TransposeCodec, BytesCodec, Crc32cCodec] or array.ndim != 2:
            names = [codec.__name__ for codec in codecs]
            raise DamagedData(f"{path} is not one of our arrays of checked tiles (its codecs are {names})")
        mark = _mark_of(read_json(path / METADATA), path / METADATA)
        (rows, columns), (height, width) = array.shape, array.shards
        return cls(path, (rows, columns), (height, width), array.chunks[0], array.dtype, mark)

    def grow(self, columns: int) -> None:
        """Room for more columns; the tiles stay as they are."""
        if columns < self.shape[1]:
            raise InvalidArgument(f"{self.path} has {self.shape[1]} columns, it cannot grow to {columns}")
        described = read_json(self.path / METADATA)
        _describe(self.path, described | {"shape": [self.shape[0], columns]}, self.mark)

    @property
    def file_bytes(self) -> int:
        """Size of the file of a tile."""
        return self._head + self._slabs * self._line + len(self._index)

    def file(self, row: int, column: int) -> Path:
        """Return the path of tile (row, column) of the grid."""
        return self.path / "c" / str(row) / str(column)

    def read(self, row: int, column: int, first: int, target: np.ndarray) -> None:
        """Columns from ``first`` on of tile (row, column), verified, into a (columns, rows) target; rows up to those of a tile.

        Raises:
            DamagedData: missing, truncated, or altered since it was written.
        """
        with self._opened(row, column) as stream:  # the size is checked before there is room for so much
            buffer = np.empty(self.file_bytes, dtype=np.uint8)
            _read_into(stream, buffer)
        first_slab, split = self._head, self._head + self._slabs * self._line
        self._check_head(buffer[:first_slab].tobytes(), row, column)
        if buffer[split:].tobytes() != self._index:
            raise DamagedData(self._altered(row, column))
        content = self._verified(buffer[first_slab:split].reshape(self._slabs, self._line), row, column)
        content = content[:, first : first + target.shape[0]]
        whole, rest = divmod(target.shape[1], self.slab)
        if whole:
            target[:, : whole * self.slab].reshape(-1, whole, self.slab)[...] = content[:whole].transpose(1, 0, 2)
        if rest:
            target[:, whole * self.slab :] = content[whole, :, :rest]

    def check_size(self, row: int, column: int) -> None:
        """Raise DamagedData if tile (row, column) is missing or has another size than its shape says."""
        with self._opened(row, column):
            pass

    def read_rows(self, row: int, column: int, index: np.ndarray) -> np.ndarray:
        """Some rows of tile (row, column), verified, as (rows, tile columns); only their slabs are read.

        Raises:
            DamagedData: the tile is missing or truncated, or one of these slabs was altered.
        """
        slabs, place = np.unique(index // self.slab, return_inverse=True)
        lines = np.empty((len(slabs), self._line), dtype=np.uint8)
        head = np.empty(self._head, dtype=np.uint8)
        with self._opened(row, column) as stream:
            _read_into(stream, head)
            self._check_head(head.tobytes(), row, column)
            for slab, line in zip(slabs.tolist(), lines, strict=True):
                stream.seek(self._head + slab * self._line)
                _read_into(stream, line)
        return self._verified(lines, row, column)[place, :, index % self.slab]

    def write(self, row: int, column: int, content: np.ndarray, *, durable: bool = False) -> None:
        """Put (tile columns, tile rows), contiguous, in the place of tile (row, column): whole, or not at all.

        Not synchronised to the device unless ``durable``: a tile that a power failure tears is found by its checksum.

        Raises:
            OutOfDisk: there is no room for it; what was there stays.
        """
        lines = np.empty((self._slabs, self._line), dtype=np.uint8)
        self._content(lines)[...] = content.reshape(self.tile[1], self._slabs, self.slab).transpose(1, 0, 2)
        for line in lines:
            line[-CHECKSUM_BYTES:] = np.frombuffer(checksum(line[:-CHECKSUM_BYTES]), dtype=np.uint8)
        # A draft that is renamed: a process that is killed here leaves the old tile, or none, never half of the new one. The
        # data are not forced to the device for each tile, which would cost a disk's latency each time: whoever records that
        # columns are done synchronises them first (RunWorkspace.commit), and tiles without a record are computed again.
        with Draft(self.file(row, column), durable=durable) as draft, draft.open("wb", buffering=0) as stream:
            _write_all(stream, self._header(row, column))
            _write_all(stream, lines.reshape(-1))
            _write_all(stream, self._index)

    @property
    def _slabs(self) -> int:
        """Slabs of a tile."""
        return self.tile[0] // self.slab

    @property
    def _head(self) -> int:
        """Bytes before the slabs."""
        return HEAD_BYTES if self.mark else 0

    def _header(self, row: int, column: int) -> bytes:
        """Return what a tile begins with: which matrix, which tile of it, and a checksum of that."""
        if not self.mark:
            return b""
        place = bytes.fromhex(self.mark) + row.to_bytes(6, "little") + column.to_bytes(6, "little")
        return place + checksum(place)

    def _check_head(self, found: bytes, row: int, column: int) -> None:
        """Raise DamagedData unless a file begins as this tile does."""
        if found == self._header(row, column):
            return
        place = found[:-CHECKSUM_BYTES]
        if checksum(place) != found[-CHECKSUM_BYTES:]:
            raise DamagedData(self._altered(row, column))
        ours = place[:16] == bytes.fromhex(self.mark)
        what = "another tile of this matrix" if ours else "a tile of another matrix"
        raise DamagedData(f"{self.file(row, column)} is {what} ({self._place(row, column)}): put the right one back")

    @property
    def _line(self) -> int:
        """Bytes of a slab with its checksum."""
        return self.slab * self.tile[1] * self.dtype.itemsize + CHECKSUM_BYTES

    @cached_property
    def _index(self) -> bytes:
        """Index that Zarr reads behind the slabs: begin and size of each, and a checksum; the same for all tiles."""
        begins = self._head + np.arange(self._slabs, dtype="<u8") * self._line
        index = np.stack([begins, np.full_like(begins, self._line)], axis=1).tobytes()
        return index + checksum(index)

    @contextmanager
    def _opened(self, row: int, column: int) -> Iterator[Any]:
        """The file of a tile, for reading; it is there and has its size."""
        file = self.file(row, column)
        try:
            stream = open_plain(file)
        except FileNotFoundError:
            raise DamagedData(f"tile {file} is missing ({self._place(row, column)})") from None
        with stream:
            size = os.fstat(stream.fileno()).st_size
            if size != self.file_bytes:
                raise DamagedData(f"tile {file} has {size} bytes instead of {self.file_bytes} ({self._place(row, column)})")
            yield stream

    def _verified(self, lines: np.ndarray, row: int, column: int) -> np.ndarray:
        """The content of slabs with their checksums, as (slabs, tile columns, slab rows)."""
        for line in lines:
            if checksum(line[:-CHECKSUM_BYTES]) != line[-CHECKSUM_BYTES:].tobytes():
                raise DamagedData(self._altered(row, column))
        return self._content(lines)

    def _content(self, lines: np.ndarray) -> np.ndarray:
        """A view of the entries in slabs, as (slabs, tile columns, slab rows)."""
        return lines[:, :-CHECKSUM_BYTES].view(self.dtype).reshape(len(lines), self.tile[1], self.slab)

    def _altered(self, row: int, column: int) -> str:
        return f"tile {self.file(row, column)} does not match its checksum: it was altered ({self._place(row, column)})"

    def _place(self, row: int, column: int) -> str:
        rows, columns = self.tile
        last_row, last_column = min((row + 1) * rows, self.shape[0]), min((column + 1) * columns, self.shape[1])
        return f"rows {row * rows} to {last_row}, columns {column * columns} to {last_column}"


def _describe(folder: Path, described: dict[str, Any], mark: str) -> None:
    """Write the description of an array, with its mark and a checksum where it has a mark."""
    if mark:
        described = described | {"attributes": {OURS: {"matrix": mark}}}
        described["attributes"][OURS]["checksum"] = digest_of(described)
    write_text(folder / METADATA, json.dumps(described, indent=2))


def _mark_of(described: Any, file: Path) -> str:
    """The mark in a description; empty where an earlier version wrote it."""
    attributes = described.get("attributes", {}) if isinstance(described, dict) else None
    if attributes in ({}, None):
        return ""
    try:
        found = dict(attributes[OURS])
        given, mark = found.pop("checksum"), str(found["matrix"])
        sound = given == digest_of(described | {"attributes": {OURS: found}}) and len(bytes.fromhex(mark)) == 16
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedData(f"{file} is damaged ({shown(str(error))}): put it back") from error
    if not sound:
        raise DamagedData(f"{file} does not match its checksum, it was altered: put it back")
    return mark


def rows_of_slabs(columns: int, itemsize: int) -> int:
    """Rows of a slab of so many columns, a power of two.

    >>> rows_of_slabs(32, 4), rows_of_slabs(1, 4), rows_of_slabs(1000, 8)
    (64, 2048, 64)
    """
    fitting = max(1, SLAB_BYTES // (columns * itemsize))
    return max(FEWEST_ROWS, 1 << (fitting.bit_length() - 1))


def _read_into(stream: Any, buffer: np.ndarray) -> None:
    """Fill the buffer; the file is long enough."""
    view, done = buffer.data, 0
    while done < len(buffer) and (got := stream.readinto(view[done:])):
        done += got


def _write_all(stream: Any, content: np.ndarray | bytes) -> None:
    view = content.data if isinstance(content, np.ndarray) else memoryview(content)
    while len(view):
        view = view[stream.write(view) :]
