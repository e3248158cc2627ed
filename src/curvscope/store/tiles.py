"""Files of one matrix: a Zarr v3 array of uncompressed tiles, each with its checksum, written whole or not at all.

A tile is one Zarr chunk: some columns of a range of rows, column after column, little-endian, with four bytes of CRC-32C behind
it. Any Zarr v3 reader opens the array; we read and write the tiles ourselves, straight between file and buffer, because
nothing may pass unverified: Zarr takes a missing chunk for zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, TransposeCodec

from curvscope.errors import DamagedData, InvalidArgument, RunNotFound
from curvscope.store.files import CHECKSUM_BYTES, Draft, checksum

METADATA = "zarr.json"


@dataclass(frozen=True)
class Tiles:
    """The tiles of a D x n matrix.

    Attributes:
        path: the directory.
        shape: (D, n).
        tile: rows and columns of a tile; those at the far edges are filled up with zeros.
        dtype: of the entries.
    """

    path: Path
    shape: tuple[int, int]
    tile: tuple[int, int]
    dtype: np.dtype

    @classmethod
    def create(cls, path: Path, shape: tuple[int, int], tile: tuple[int, int], dtype: np.dtype) -> Tiles:
        """A new array without tiles."""
        with Draft(path) as draft:
            zarr.create_array(
                draft,
                shape=shape,
                chunks=tile,
                dtype=dtype,
                filters=[TransposeCodec(order=(1, 0))],
                serializer=BytesCodec(endian="little"),
                compressors=[Crc32cCodec()],
            )
        return cls(path, shape, tile, np.dtype(dtype))

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
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedData(f"{path / METADATA} is damaged ({error})") from error
        codecs = [type(codec) for codec in (*array.filters, array.serializer, *array.compressors)]
        if codecs != [TransposeCodec, BytesCodec, Crc32cCodec] or array.ndim != 2:
            raise DamagedData(f"{path} is not one of our arrays of checked tiles (its codecs are {codecs})")
        return cls(path, array.shape, array.chunks, array.dtype)

    def grow(self, columns: int) -> None:
        """Room for more columns; the tiles stay as they are."""
        if columns < self.shape[1]:
            raise InvalidArgument(f"{self.path} has {self.shape[1]} columns, it cannot grow to {columns}")
        zarr.open_array(self.path, mode="r+").resize((self.shape[0], columns))

    @property
    def file_bytes(self) -> int:
        """Size of the file of a tile."""
        return self.tile[0] * self.tile[1] * self.dtype.itemsize + CHECKSUM_BYTES

    def file(self, row: int, column: int) -> Path:
        """Where tile (row, column) of the grid lies."""
        return self.path / "c" / str(row) / str(column)

    def read(self, row: int, column: int) -> np.ndarray:
        """Tile (row, column) as (tile columns, tile rows), verified.

        Raises:
            DamagedData: missing, truncated, or altered since it was written.
        """
        file = self.file(row, column)
        buffer = np.empty(self.file_bytes, dtype=np.uint8)
        try:
            with file.open("rb", buffering=0) as stream:
                got, longer = _read_into(stream, buffer), stream.read(1)
        except FileNotFoundError:
            raise DamagedData(f"tile {file} is missing ({self._place(row, column)})") from None
        if got != len(buffer) or longer:
            size = file.stat().st_size
            raise DamagedData(f"tile {file} has {size} bytes instead of {len(buffer)} ({self._place(row, column)})")
        content = buffer[:-CHECKSUM_BYTES]
        if checksum(content) != buffer[-CHECKSUM_BYTES:].tobytes():
            raise DamagedData(f"tile {file} does not match its checksum: it was altered ({self._place(row, column)})")
        return content.view(self.dtype).reshape(self.tile[1], self.tile[0])

    def write(self, row: int, column: int, content: np.ndarray) -> None:
        """Put (tile columns, tile rows), contiguous, in the place of tile (row, column): whole, or not at all.

        Not synchronised to the device one by one: a tile that a power failure tears is found by its checksum.

        Raises:
            OutOfDisk: there is no room for it; what was there stays.
        """
        file = self.file(row, column)
        raw = content.reshape(-1).view(np.uint8)
        with Draft(file) as draft, draft.open("wb", buffering=0) as stream:
            _write_all(stream, raw)
            _write_all(stream, checksum(raw))

    def _place(self, row: int, column: int) -> str:
        rows, columns = self.tile
        last_row, last_column = min((row + 1) * rows, self.shape[0]), min((column + 1) * columns, self.shape[1])
        return f"rows {row * rows} to {last_row}, columns {column * columns} to {last_column}"


def _read_into(stream: object, buffer: np.ndarray) -> int:
    """Fill the buffer; how many bytes there were."""
    view, done = memoryview(buffer), 0
    while done < len(buffer) and (got := stream.readinto(view[done:])):
        done += got
    return done


def _write_all(stream: object, content: np.ndarray | bytes) -> None:
    view = memoryview(content)
    while len(view):
        view = view[stream.write(view) :]
