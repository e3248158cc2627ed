"""Tall matrices on disk: the same numbers as in memory, and damage is found."""

import errno
import gc
from functools import partial
from pathlib import Path

import pytest
import torch
import zarr

from curvscope import testing
from curvscope.errors import DamagedData, InvalidArgument, OutOfDisk, RunNotFound
from curvscope.store import _tiles as store_tiles, remove_drafts
from curvscope.tall import InMemory, OnDisk, remove_scratch


@pytest.fixture
def on_disk(tmp_path):
    count = iter(range(1000))

    def make(tensor, *, tile_rows=256, tile_columns=4):
        rows, columns = tensor.shape
        made = OnDisk.create(
            tmp_path / str(next(count)), rows, columns, tensor.dtype, tile_rows=tile_rows, tile_columns=tile_columns
        )
        made.write(0, tensor)
        return made

    return make


@pytest.mark.parametrize("check", testing.TALL_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64], ids=str)
@pytest.mark.parametrize("place", ["in memory", "on disk", "on disk, tiles of several slabs"])
def test_conformance(place, dtype, check, on_disk):
    makers = {"in memory": lambda tensor: InMemory(tensor.clone()), "on disk": on_disk}
    check(makers.get(place, partial(on_disk, tile_columns=32)), dtype)


@pytest.fixture
def stored(on_disk):
    return on_disk(torch.randn(1000, 10))


def test_any_zarr_reader_opens_it(stored):
    array = zarr.open_array(stored.path, mode="r")
    assert array.shards == (256, 4)
    assert torch.equal(torch.from_numpy(array[:]), stored.to_tensor())


def test_any_zarr_reader_opens_tiles_of_several_slabs(on_disk):
    matrix = on_disk(torch.randn(1000, 40), tile_columns=32)
    array = zarr.open_array(matrix.path, mode="r")
    assert (array.chunks, array.shards) == ((64, 32), (256, 32))
    assert torch.equal(torch.from_numpy(array[:]), matrix.to_tensor())


def test_rows_read_and_verify_no_more_than_their_slabs(on_disk, monkeypatch):
    tensor = torch.randn(1000, 40)
    matrix = on_disk(tensor, tile_columns=32)
    raw = bytearray(tiles(matrix)[0].read_bytes())
    raw[store_tiles.HEAD_BYTES + 10] ^= 1  # rows 0 to 64, columns 0 to 32
    tiles(matrix)[0].write_bytes(raw)
    index = torch.tensor([-1, 64, 70, 64, 999, 500])
    sizes, read = [], store_tiles._read_into
    monkeypatch.setattr(store_tiles, "_read_into", lambda stream, line: (sizes.append(len(line)), read(stream, line)))
    assert torch.equal(matrix.rows(index), tensor[index])
    assert torch.equal(matrix.between(30, 35).rows(index), tensor[index, 30:35])
    slab = 64 * 32 * 4 + 4
    assert set(sizes) == {slab, store_tiles.HEAD_BYTES}
    assert sizes.count(slab) == 2 * 3 * 2, "three slabs of rows in two columns of tiles, twice"
    with pytest.raises(DamagedData, match="does not match its checksum"):
        matrix.rows(torch.tensor([63]))


def test_open_gives_what_was_written(stored):
    again = OnDisk(stored.path)
    assert again.shape == (1000, 10)
    assert again.dtype == torch.float32
    assert torch.equal(again.to_tensor(), stored.to_tensor())


def test_blocks_of_columns_have_files_of_their_own(on_disk):
    matrix = on_disk(torch.zeros(1000, 12))
    before = {file: file.stat().st_mtime_ns for file in matrix.path.glob("c/*/*")}
    matrix.write(4, torch.ones(1000, 4))
    changed = {file.name for file, time in before.items() if file.stat().st_mtime_ns != time}
    assert changed == {"1"}


def tiles(matrix):
    return sorted(file for file in matrix.path.glob("c/*/*"))


def damaged_reads(matrix):
    """The ways to read that notice the damage."""
    reads = {
        "tensor": matrix.to_tensor,
        "columns": lambda: matrix.columns(0, matrix.shape[1]),
        "panels": lambda: [OnDisk(matrix.path).rows(panel) for panel in matrix.panels()],
        "rows": lambda: OnDisk(matrix.path).rows(torch.arange(matrix.shape[0])),
        "verify": lambda: matrix.verify(0, matrix.shape[1]),
    }
    noticed = {}
    for name, read in reads.items():
        with pytest.raises(DamagedData) as error:
            read()
        noticed[name] = str(error.value)
    return noticed


def test_a_flipped_byte_is_found_everywhere(stored):
    """In every tile, at the first and last byte, in the padding and in the checksum, and at places drawn at random."""
    generator = torch.Generator().manual_seed(0)
    for file in tiles(stored):
        good = file.read_bytes()
        places = {0, len(good) - 1, len(good) - 5, *torch.randint(len(good), (5,), generator=generator).tolist()}
        for place in places:
            file.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
            with pytest.raises(DamagedData, match="does not match its checksum") as error:
                stored.verify(0, 10)
            assert str(file) in str(error.value)
        file.write_bytes(good)
    stored.verify(0, 10)


def test_every_way_of_reading_notices(stored):
    file = tiles(stored)[-1]
    raw = bytearray(file.read_bytes())
    raw[7] ^= 16
    file.write_bytes(raw)
    assert all("checksum" in message for message in damaged_reads(stored).values())


@pytest.mark.parametrize("size", [0, 1, 100, 4 * 256 * 4 + 23, 4 * 256 * 4 + 25])
def test_a_file_of_another_size_is_found(stored, size):
    file = tiles(stored)[3]
    raw = file.read_bytes()
    file.write_bytes((raw + b"\0")[:size])
    assert all(f"has {size} bytes" in message for message in damaged_reads(stored).values())


def test_a_missing_file_is_found_and_not_taken_for_zeros(stored):
    tiles(stored)[0].unlink()
    assert all("is missing (rows 0 to 256, columns 0 to 4)" in message for message in damaged_reads(stored).values())


def test_what_was_never_written_is_an_error(tmp_path):
    matrix = OnDisk.create(tmp_path / "m", 100, 8, torch.float32, tile_columns=4)
    matrix.write(0, torch.ones(100, 4))
    assert float(matrix.columns(0, 4).sum()) == 400
    with pytest.raises(DamagedData, match="missing"):
        matrix.columns(3, 5)


def test_a_full_disk_is_named_and_loses_nothing(stored, monkeypatch):
    before = stored.to_tensor()

    def full(stream, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("curvscope.store._tiles._write_all", full)
    with pytest.raises(OutOfDisk, match="no room on the disk"):
        stored.write(0, torch.ones(1000, 10))
    monkeypatch.undo()
    assert torch.equal(stored.to_tensor(), before)
    assert not list(stored.path.glob("**/*.partial"))


def test_a_write_that_dies_halfway_leaves_the_old_tile(stored, monkeypatch):
    before = stored.to_tensor()

    def die(draft, file):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        stored.write(0, torch.ones(1000, 10))
    monkeypatch.undo()
    assert torch.equal(stored.to_tensor(), before)


def test_scratch_goes_with_its_holder_unless_it_is_moved(stored):
    room = stored.empty_like(3)
    place = room.path
    view = room.leading(2)
    del room
    gc.collect()
    assert place.exists(), "a view holds it"
    del view
    gc.collect()
    assert not place.exists()
    kept = stored.empty_like(3)
    kept.write(0, torch.ones(1000, 3))
    kept = kept.move(stored.path.with_name("kept"))
    gc.collect()
    assert float(kept.to_tensor().sum()) == 3000
    again = stored.empty_like(1)
    again.write(0, torch.zeros(1000, 1))
    again.move(kept.path)
    assert OnDisk(kept.path).shape == (1000, 1)


def test_what_killed_processes_left_is_removed(tmp_path):
    OnDisk.create(tmp_path / "scratch-1-0", 10, 1, torch.float32).write(0, torch.ones(10, 1))
    matrix = OnDisk.create(tmp_path / "m", 10, 1, torch.float32)
    matrix.write(0, torch.ones(10, 1))
    draft = matrix.tiles.file(0, 0).with_name(".0.1.partial")
    draft.write_bytes(b"half")
    remove_scratch(tmp_path)
    remove_drafts(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m"]
    assert not draft.exists()
    assert float(matrix.to_tensor().sum()) == 10


def test_what_is_no_matrix_is_named(tmp_path, stored):
    with pytest.raises(RunNotFound, match="holds no matrix"):
        OnDisk(tmp_path)
    zarr.create_array(tmp_path / "other", shape=(3, 3), chunks=(3, 3), dtype="float32")
    with pytest.raises(DamagedData, match="not one of our arrays"):
        OnDisk(tmp_path / "other")
    (stored.path / "zarr.json").write_text("{")
    with pytest.raises(DamagedData, match="damaged"):
        OnDisk(stored.path)
    with pytest.raises(InvalidArgument, match="at least 1"):
        OnDisk.create(tmp_path / "none", 0, 3, torch.float32)
    with pytest.raises(InvalidArgument, match="written in order"):
        OnDisk.create(tmp_path / "m", 1000, 3, torch.float32, tile_rows=256).write_rows(slice(5, 256), torch.ones(251, 3))
