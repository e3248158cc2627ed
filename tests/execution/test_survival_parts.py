"""The parts of runs that must not give way: locks, Ctrl-C, records, sizes in words."""

import errno
import itertools
import os
import signal
import subprocess
import sys

import pytest
import torch

from curvscope.errors import DamagedData, InvalidArgument, InvalidType, OutOfDisk, RunConflict
from curvscope.store import Draft, Lock, Records, Run, draft_beside
from curvscope.store._files import DRAFT
from curvscope.system import Interruptible, as_bytes, extra_memory


def test_a_lock_is_held_by_one_and_left_by_the_dead(tmp_path):
    first, second = Lock(tmp_path), Lock(tmp_path)
    first.take()
    with pytest.raises(RunConflict, match=f"in use by process {os.getpid()} on"):
        second.take()
    first.release()
    script = (
        "import os, signal, sys; from pathlib import Path; from curvscope.store._lock import Lock;"
        "Lock(Path(sys.argv[1])).take(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    dead = subprocess.run([sys.executable, "-c", script, tmp_path], check=False)
    assert dead.returncode == -signal.SIGKILL
    assert (tmp_path / "lock").read_text() != ""
    second.take()
    second.release()


def press_and_go_on(times, done):
    with Interruptible("go on like this") as work:
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
        done.append("the block in hand")
        work.check()


def test_the_first_ctrl_c_waits_and_the_second_does_not():
    before, done = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt, match="go on like this"):
        press_and_go_on(1, done)
    assert done == ["the block in hand"]
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        press_and_go_on(2, done)
    assert len(done) == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_records_come_back_and_damage_is_found(tmp_path):
    records = Records(tmp_path)
    tensors = {"a": torch.randn(3, 2, dtype=torch.complex128), "empty": torch.zeros(0), "one": torch.tensor(1.5)}
    records.write("deep/name", {"x": 0.1, "y": [1, None]}, tensors)
    facts, found = records.read("deep/name")
    assert facts == {"x": 0.1, "y": [1, None]}
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items())
    file = tmp_path / "deep" / "name.record"
    raw = file.read_bytes()
    for place in (0, 5, len(raw) // 2, len(raw) - 1):
        file.write_bytes(raw[:place] + bytes([raw[place] ^ 4]) + raw[place + 1 :])
        with pytest.raises(DamagedData, match="checksum"):
            records.read("deep/name")
    for size in (0, 2, len(raw) - 1):
        file.write_bytes(raw[:size])
        with pytest.raises(DamagedData, match="truncated"):
            records.read("deep/name")


def fail(target, begin, error):
    with Draft(target) as draft:
        begin(draft)
        raise error


def test_a_draft_that_fails_leaves_what_was_there(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(OutOfDisk, match="no room"):
        fail(target, lambda draft: draft.write_text("half"), OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(ZeroDivisionError):
        fail(target, lambda draft: draft.mkdir(), ZeroDivisionError())
    assert target.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_facts_that_differ_are_named_and_free_ones_change(tmp_path):
    run = Run.create(tmp_path / "run", kind="eigs", options={"problem": "mnist16", "k": 5, "step": None})
    Run.resume(run.path, kind="eigs", options={"problem": "mnist16", "k": 6, "step": None}, free=["k"])
    assert Run.open(run.path).manifest["options"]["k"] == 6
    with pytest.raises(RunConflict, match='problem is "mnist16" in the run and "other" here; step is not set in the run and 3'):
        Run.resume(run.path, kind="eigs", options={"problem": "other", "k": 6, "step": 3})
    with pytest.raises(RunConflict, match="a run of 'eigs', not of 'demo'"):
        Run.resume(run.path, kind="demo", options={})


def test_a_planned_run_writes_nothing_before_its_session(tmp_path):
    run = Run.resume(tmp_path / "run", kind="eigs", options={"k": 1})
    assert not run.path.exists()
    with run.session():
        assert run.in_use
    assert not run.in_use
    assert Run.open(run.path).manifest["sessions"][-1]["ended"]["how"] == "finished"
    with pytest.raises(ZeroDivisionError), run.session():
        raise ZeroDivisionError("one over nothing")
    assert Run.open(run.path).manifest["sessions"][-1]["ended"]["how"] == "ZeroDivisionError: one over nothing"


def test_bytes_in_words():
    assert as_bytes("4GiB") == as_bytes(" 4096 mib") == 2**32
    assert as_bytes("2GB") == 2_000_000_000
    for wrong in ("much", "-3", "", "4 GiB of it", "0"):
        with pytest.raises(InvalidArgument, match="such as '8GiB'"):
            as_bytes(wrong)
    with pytest.raises(InvalidType):
        as_bytes(4.5)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the peak of a moment")
def test_the_peak_of_a_moment_is_seen():
    _, extra = extra_memory(lambda: float(torch.ones(30_000_000).sum()))
    assert 100_000_000 < extra < 300_000_000
    _, small = extra_memory(lambda: None)
    assert small < 20_000_000


def test_the_name_of_a_draft_cannot_be_guessed(tmp_path):
    """Else another account could put a link of that name into a shared folder first."""
    names = [draft_beside(tmp_path / "pairs.npz").name for _ in range(50)]
    numbers = sorted(int(DRAFT.fullmatch(name)[0].rpartition("-")[2].removesuffix(".partial")) for name in names)
    assert len(set(numbers)) == len(names)
    assert min(after - before for before, after in itertools.pairwise(numbers)) > 1 << 32
