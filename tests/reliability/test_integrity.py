"""Nothing of a run is used in silence that was altered, exchanged, or is another run's; older files are read as before."""

import json
import shutil

import numpy as np
import pytest
import torch
import zarr

import curvscope as cs
from curvscope.errors import DamagedData
from curvscope.store import Records, Run, read_sealed_tensors, write_tensors
from curvscope.tall import OnDisk

from . import integrity


def fallen(whole):
    return [f"{name}: {found}" for name, found in integrity.findings(whole) if found is not None]


def test_harmed_runs_are_refused_or_give_the_same_numbers():
    assert fallen(whole=False) == []


@pytest.mark.slow
def test_five_hundred_harmed_runs_are_refused_or_give_the_same_numbers():
    assert fallen(whole=True) == []


def matrix(path, seed=0):
    torch.manual_seed(seed)
    stored = OnDisk.create(path, 300, 5, torch.float32, tile_columns=2, tile_rows=128)
    values = torch.randn(300, 5)
    stored.write(0, values)
    return stored, values


def test_tiles_know_their_place_and_matrix(tmp_path):
    stored, _ = matrix(tmp_path / "one")
    other, _ = matrix(tmp_path / "two", seed=1)
    first, second = stored.tiles.file(0, 0), stored.tiles.file(1, 0)
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    for use in (stored.to_tensor, lambda: stored.rows(torch.tensor([3])), lambda: stored.verify(0, 1)):
        with pytest.raises(DamagedData, match="is another tile of this matrix"):
            use()
    first.write_bytes(other.tiles.file(0, 0).read_bytes())
    with pytest.raises(DamagedData, match="is a tile of another matrix"):
        stored.to_tensor()
    first.write_bytes(kept)
    stored.verify(0, 5)


def test_zarr_reads_marked_tiles(tmp_path):
    stored, values = matrix(tmp_path / "one")
    assert np.array_equal(zarr.open_array(tmp_path / "one", mode="r")[:], values.numpy())
    assert torch.equal(stored.grow(7).columns(0, 5), values)
    OnDisk(tmp_path / "one")  # the description has a new checksum


@pytest.mark.parametrize("change", [{"shape": [298, 5]}, {"data_type": "int32", "fill_value": 0}, {"attributes": {"x": 1}}])
def test_altered_descriptions_are_found(tmp_path, change):
    matrix(tmp_path / "one")
    file = tmp_path / "one" / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(DamagedData):
        OnDisk(tmp_path / "one")


def test_matrices_of_earlier_versions_are_read_and_written_as_they_are(tmp_path):
    stored, values = matrix(tmp_path / "one")
    head = len(stored.tiles._header(0, 0))
    file = tmp_path / "one" / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"attributes": {}}))
    old = OnDisk(tmp_path / "one")
    assert (old.mark, old.tiles.file_bytes) == ("", stored.tiles.file_bytes - head)
    old.write(0, values)
    assert torch.equal(OnDisk(tmp_path / "one").to_tensor(), values)
    assert np.array_equal(zarr.open_array(tmp_path / "one", mode="r")[:], values.numpy())


def test_records_know_their_name_and_run(tmp_path):
    ours, others = Records(tmp_path / "a", "run a"), Records(tmp_path / "b", "run b")
    for records in (ours, others):
        records.write("state", {"k": 3})
        records.write("kept", {"k": 4})
    shutil.copy(tmp_path / "a" / "kept.record", tmp_path / "a" / "state.record")
    with pytest.raises(DamagedData, match="not the record 'state' of this run"):
        ours.read("state")
    shutil.copy(tmp_path / "b" / "state.record", tmp_path / "a" / "state.record")
    with pytest.raises(DamagedData, match="it is of another run"):
        ours.read("state")
    assert Records(tmp_path / "a").read("state").facts == {"k": 3}  # a run of an earlier version has no mark


def test_tensors_have_a_checksum_and_a_run(tmp_path):
    write_tensors(tmp_path / "a.safetensors", {"w": torch.ones(3), "b": torch.tensor(True)}, "a")
    assert read_sealed_tensors(tmp_path / "a.safetensors", "a")["w"].tolist() == [1, 1, 1]
    with pytest.raises(DamagedData, match="belongs to another run"):
        read_sealed_tensors(tmp_path / "a.safetensors", "b")
    content = bytearray((tmp_path / "a.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(DamagedData, match="does not match its checksum"):
        read_sealed_tensors(tmp_path / "a.safetensors", "a")


def test_the_solution_of_another_run_is_refused(tmp_path):
    A = torch.diag(torch.linspace(1, 60, 60))
    options = {"method": "krylov", "progress": False}
    solution = cs.eigsh(A, 3, run=tmp_path / "a", **options)
    cs.eigsh(2 * A, 3, run=tmp_path / "b", **options)
    shutil.copytree(tmp_path / "a", tmp_path / "moved")  # a copy of a whole run is that run
    assert torch.equal(cs.open(tmp_path / "moved").eigenvalues, solution.eigenvalues)
    shutil.rmtree(tmp_path / "a" / "solution")
    shutil.copytree(tmp_path / "b" / "solution", tmp_path / "a" / "solution")
    with pytest.raises(DamagedData, match="belongs to another run"):
        cs.open(tmp_path / "a")
    again = cs.eigsh(A, 3, run=tmp_path / "a", **options)
    assert torch.equal(again.eigenvalues, solution.eigenvalues)


def test_sealed_files_of_a_run_are_verified(tmp_path):
    run, other = (Run.create(tmp_path / name, kind="example", options={}) for name in "ab")
    file = run.write_sealed("numbers.json", {"k": 3})
    assert run.read_json("numbers.json") == {"k": 3}
    file.write_text(file.read_text().replace("3", "4", 1))
    with pytest.raises(DamagedData, match="does not match its checksum"):
        run.read_json("numbers.json")
    shutil.copy(other.write_sealed("numbers.json", {"k": 3}), file)
    with pytest.raises(DamagedData, match="belongs to another run"):
        run.read_json("numbers.json")
    run.write_json("numbers.json", {"k": 5})  # as earlier versions wrote it
    assert run.read_json("numbers.json") == {"k": 5}
