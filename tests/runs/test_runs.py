"""Solves in runs: what is kept, what is used again, what is refused."""

import logging
import os
import signal
import sys

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import DamagedData, Interrupted, OutOfBudget, OutOfDisk, RunConflict, RunNotFound
from curvscope.operators.base import Operator
from curvscope.store import Run
from curvscope.tall import OnDisk

D = 600


class Counting(Operator):
    """An operator that counts its products, and may stop its caller."""

    def __init__(self, inner=None, stop_at=None):
        self.inner = inner or cs.problems.spectrum("low_rank_diagonal", D, rank=12, negative=0.3)
        self.shape, self.dtype, self.device = self.inner.shape, self.inner.dtype, self.inner.device
        self.hermitian, self.products, self.stop_at = True, 0, stop_at

    def _apply(self, block):
        self.products += block.shape[1]
        if self.stop_at is not None and self.products >= self.stop_at:
            self.stop_at = None
            os.kill(os.getpid(), signal.SIGINT)
        return self.inner @ block

    def _fingerprint(self):
        return self.inner.fingerprint


METHODS = {
    "seigh": lambda A, run, k=5, **more: cs.seigh(A, num_outer=4 * k, k=k, block_size=6, run=run, **more),
    "hmt": lambda A, run, k=5, **more: cs.eigsh(A, k, method="hmt", max_products=6 * k, block_size=6, run=run, **more),
    "nystrom": lambda A, run, k=5, **more: cs.eigsh(A, k, method="nystrom", block_size=6, run=run, **more),
    "singlepass": lambda A, run, k=5, **more: cs.eigsh(A, k, method="singlepass", block_size=6, run=run, **more),
    "krylov": lambda A, run, k=5, **more: cs.eigsh(A, k, method="krylov", block_size=3, run=run, **more),
    "exact": lambda A, run, k=5, **more: cs.eigsh(A, k, method="exact", run=run, **more),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_finished_run_is_not_done_again(method, tmp_path):
    A = Counting()
    first = METHODS[method](A, tmp_path)
    spent = A.products
    again = METHODS[method](A, tmp_path)
    assert A.products == spent
    assert torch.equal(again.eigenvectors.to_tensor(), first.eigenvectors.to_tensor())
    assert again.cost == first.cost
    stored = cs.open(tmp_path)
    assert torch.equal(stored.eigenvalues, first.eigenvalues)
    assert torch.equal(stored.residual_norms, first.residual_norms)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stop_at", [1, 14, 22])
def test_ctrl_c_saves_the_block_and_says_how_to_go_on(method, stop_at, tmp_path):
    whole = METHODS[method](Counting(), tmp_path / "whole")
    A, place = Counting(stop_at=stop_at), tmp_path / "stopped"
    with pytest.raises(Interrupted, match="to resume from there"):
        METHODS[method](A, place)
    assert Run.open(place).manifest["sessions"][-1]["ended"]["how"].startswith("Interrupted")
    after = METHODS[method](A, place)
    assert A.products == whole.cost.products + whole.cost.certificate_products
    assert torch.equal(after.eigenvectors.to_tensor(), whole.eigenvectors.to_tensor())
    assert torch.equal(after.residual_norms, whole.residual_norms)
    assert after.cost.products == whole.cost.products


@pytest.mark.parametrize("method", ["seigh", "hmt", "nystrom", "singlepass", "krylov"])
def test_growing_reuses_what_there_is(method, tmp_path):
    A = Counting()
    small = METHODS[method](A, tmp_path / "grown")
    before = A.products
    large = METHODS[method](A, tmp_path / "grown", k=9)
    fresh = Counting()
    alone = METHODS[method](fresh, tmp_path / "alone", k=9)
    assert large.k == 9
    saved = 0 if method == "krylov" else small.cost.products / (2 if method == "hmt" else 1) - 6
    assert A.products - before < fresh.products - saved
    assert float(large.residual_norms.max()) <= 2 * float(alone.residual_norms.max()) + 1e-3
    if method not in ("krylov",):
        assert torch.equal(large.eigenvectors.to_tensor(), alone.eigenvectors.to_tensor())


def test_a_smaller_tolerance_goes_on_from_the_basis(tmp_path):
    A = Counting()
    METHODS["krylov"](A, tmp_path, tol=1e-2)
    before = A.products
    sharp = METHODS["krylov"](A, tmp_path, tol=1e-8)
    assert sharp.status.converged
    alone = Counting()
    METHODS["krylov"](alone, None, tol=1e-8)
    assert A.products - before < 0.8 * alone.products


def test_every_difference_is_named(tmp_path):
    A = Counting()
    METHODS["seigh"](A, tmp_path)
    with pytest.raises(RunConflict, match=r"seed is 0 in the run and 1 here; block_size is 6 in the run and 5 here"):
        cs.seigh(A, num_outer=20, k=5, seed=1, block_size=5, run=tmp_path)
    with pytest.raises(RunConflict, match=r'method is "seigh" in the run and "hmt" here'):
        METHODS["hmt"](A, tmp_path)
    other = Counting(cs.problems.spectrum("low_rank_diagonal", D, rank=11))
    with pytest.raises(RunConflict, match="fingerprint is"):
        METHODS["seigh"](other, tmp_path)
    assert other.products == 0


def test_other_pieces_of_a_batch_are_another_run(tmp_path):
    torch.manual_seed(0)
    model, data = torch.nn.Linear(3, 2), [(torch.randn(6, 3), torch.arange(6) % 2)]
    whole, pieces = (cs.ggn(model, torch.nn.CrossEntropyLoss(), data, microbatch=size) for size in (None, 2))
    cs.eigsh(pieces, 2, run=tmp_path)
    with pytest.raises(RunConflict, match=r"microbatch is \[2\] in the run and not set here"):
        cs.eigsh(whole, 2, run=tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder in which not even root can write")
def test_a_place_that_cannot_be_written_to_is_named_before():
    with pytest.raises(RunConflict, match="/proc may not be written to"):
        Run.planned("/proc/run", kind="eigs", options={})


def test_two_processes_do_not_share_a_run(tmp_path):
    METHODS["seigh"](Counting(), tmp_path)
    run = Run.open(tmp_path)
    with run.session(), pytest.raises(RunConflict, match=f"in use by process {os.getpid()}"):
        METHODS["seigh"](Counting(), tmp_path)
    METHODS["seigh"](Counting(), tmp_path)


def flip(file, place=100):
    raw = bytearray(file.read_bytes())
    raw[place % len(raw)] ^= 1
    file.write_bytes(raw)


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove"])
def test_a_damaged_measurement_is_named_and_made_again(harm, tmp_path, caplog):
    whole = METHODS["seigh"](Counting(), tmp_path / "whole")
    place = tmp_path / "stopped"
    with pytest.raises(Interrupted):
        METHODS["seigh"](Counting(stop_at=30), place)
    tile = sorted(place.glob("measured/*/c/*/2"))[0]
    match harm:
        case "flip":
            flip(tile)
        case "truncate":
            tile.write_bytes(tile.read_bytes()[:-10])
        case "remove":
            tile.unlink()
    B = Counting()
    with caplog.at_level(logging.WARNING):
        again = METHODS["seigh"](B, place)
    assert str(tile) in caplog.text
    assert "products 13 to 18 are measured again" in caplog.text
    assert torch.equal(again.eigenvectors.to_tensor(), whole.eigenvectors.to_tensor())


def test_a_damaged_result_is_found_again_from_the_measurements(tmp_path, caplog):
    A = Counting()
    whole = METHODS["seigh"](A, tmp_path)
    flip(next(tmp_path.glob("solution/eigenvectors.zarr/c/*/*")))
    with pytest.raises(DamagedData, match="checksum"):
        cs.open(tmp_path)
    B = Counting()
    again = METHODS["seigh"](B, tmp_path)
    assert "computed again" in caplog.text
    assert B.products == 0, "the residual norms are those of the same vectors"
    assert torch.equal(again.eigenvectors.to_tensor(), whole.eigenvectors.to_tensor())
    (tmp_path / "solution" / "solution.json").write_text("{")
    assert torch.equal(METHODS["seigh"](B, tmp_path).residual_norms, whole.residual_norms)
    assert "written again" in caplog.text
    assert B.products == 0


def test_a_damaged_basis_is_refused(tmp_path):
    with pytest.raises(Interrupted):
        METHODS["krylov"](Counting(stop_at=20), tmp_path)
    flip(next(tmp_path.glob("basis/*/c/*/1")))
    with pytest.raises(DamagedData, match=r"tile .* does not match its checksum"):
        METHODS["krylov"](Counting(), tmp_path)


def test_a_damaged_record_is_computed_again(tmp_path, caplog):
    A = Counting()
    METHODS["hmt"](A, tmp_path)
    (tmp_path / "solution" / "solution.json").unlink()
    flip(next(tmp_path.glob("records/*/residuals/*.record")))
    B = Counting()
    METHODS["hmt"](B, tmp_path)
    assert B.products == 5
    assert "does not match its checksum" in caplog.text


@pytest.mark.parametrize("how", ["truncated", "empty", "altered", "no text"])
def test_a_damaged_table_is_named_and_written_again(tmp_path, caplog, how):
    before = METHODS["krylov"](Counting(), tmp_path)
    table = tmp_path / "solution" / "solution.json"
    whole = table.read_bytes()
    value = repr(float(before.eigenvalues[0])).encode()
    changed = {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "altered": whole.replace(value, value[:-1] + (b"1" if value[-1:] != b"1" else b"2")),
        "no text": bytes([255]) + whole,
    }
    assert changed[how] != whole
    table.write_bytes(changed[how])
    with pytest.raises(DamagedData, match=r"solution\.json"):
        cs.open(tmp_path)
    again = Counting()
    after = METHODS["krylov"](again, tmp_path)
    assert again.products == 0
    assert "solution.json" in caplog.text
    for solution in (after, cs.open(tmp_path)):
        assert torch.equal(solution.eigenvalues, before.eigenvalues)
        assert torch.equal(solution.residual_norms, before.residual_norms)


@pytest.mark.parametrize("when", ["fsync", "replace"])
def test_a_disk_that_tells_late_that_it_is_full_is_named(tmp_path, monkeypatch, when):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    METHODS["krylov"](Counting(), tmp_path / "run")
    solution = cs.open(tmp_path / "run")
    monkeypatch.setattr(os, when, full)
    with pytest.raises(OutOfDisk):
        solution.save_again(tmp_path / "run" / "solution")
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.partial"))
    assert torch.equal(cs.open(tmp_path / "run").eigenvalues, solution.eigenvalues)


@pytest.mark.parametrize("content", [b"", b"[1]", b"null", bytes([255, 254])])
def test_manifests_that_are_none_are_named(tmp_path, content):
    METHODS["krylov"](Counting(), tmp_path)
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(RunNotFound, match="not readable JSON"):
        METHODS["krylov"](Counting(), tmp_path)
    (tmp_path / "solution" / "solution.json").write_bytes(content)
    with pytest.raises(DamagedData, match=r"solution\.json is damaged"):
        cs.open(tmp_path)


def test_a_full_disk_is_named_and_the_run_goes_on_later(tmp_path, monkeypatch):
    import errno

    from curvscope.store import _tiles as tiles

    whole, place = METHODS["seigh"](Counting(), tmp_path / "whole"), tmp_path / "full"
    write, left = tiles._write_all, [100_000]

    def limited(stream, content):
        left[0] -= len(memoryview(content).cast("B"))
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(stream, content)

    monkeypatch.setattr(tiles, "_write_all", limited)
    with pytest.raises(OutOfDisk, match="run the same command again"):
        METHODS["seigh"](Counting(), place)
    monkeypatch.undo()
    A = Counting()
    again = METHODS["seigh"](A, place)
    assert A.products < whole.cost.products + whole.cost.certificate_products
    assert torch.equal(again.eigenvectors.to_tensor(), whole.eigenvectors.to_tensor())


def test_a_disk_without_room_is_refused_at_once(tmp_path, monkeypatch):
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    A = Counting()
    with pytest.raises(OutOfDisk, match=r"needs up to .* of disk, 97\.7 KiB are free"):
        METHODS["seigh"](A, tmp_path / "run")
    assert A.products == 0
    assert not (tmp_path / "run").exists()


def test_the_way_of_computing_products_is_kept(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 3))
    data = [(torch.randn(16, 6), torch.arange(16) % 3)]
    H = cs.hessian(model, nn.CrossEntropyLoss(), data)
    with pytest.raises(Interrupted):
        METHODS["krylov"](Counting(H, stop_at=9), tmp_path)
    cs.eigsh(H, 4, method="krylov", run=tmp_path / "own", max_products=40)
    chosen = Run.open(tmp_path / "own").manifest["decisions"]["products"]
    other = "double_backward" if chosen["strategy"] != "double_backward" else "split"
    run = Run.open(tmp_path / "own")
    run.manifest["decisions"]["products"] = {"strategy": other, "width": 2}
    run.save()
    solution = cs.eigsh(H, 5, method="krylov", run=tmp_path / "own", max_products=60)
    assert solution.provenance["products"]["strategy"] == other
    H @ torch.randn(H.shape[0], 8)
    assert H.strategy_report["width"] != 2 or H.strategy_report["strategy"] != other


def test_memory_decides_where_matrices_lie(tmp_path):
    from curvscope.system import resident_bytes

    A = Counting(cs.problems.spectrum("low_rank_diagonal", 400_000, rank=20, dtype=torch.float32))
    free = resident_bytes()
    with pytest.raises(OutOfBudget, match=r"run=PATH"):
        cs.seigh(A, num_outer=100, num_inner=101, memory=free + 400_000_000)
    with pytest.raises(OutOfBudget, match=r"allow memory='"):
        cs.seigh(A, num_outer=100, num_inner=101, memory=free + 1_000_000, run=tmp_path / "none")
    assert A.products == 0
    wide = cs.seigh(A, num_outer=24, memory=free + 2_000_000_000, run=tmp_path / "memory")
    assert Run.open(tmp_path / "memory").manifest["decisions"]["resident"]
    tight = cs.seigh(A, num_outer=24, memory=free + 400_000_000, run=tmp_path / "disk")
    assert not Run.open(tmp_path / "disk").manifest["decisions"]["resident"]
    assert isinstance(tight.eigenvectors, OnDisk)
    torch.testing.assert_close(tight.eigenvalues, wide.eigenvalues, rtol=1e-4, atol=1e-6)
