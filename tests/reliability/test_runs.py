"""Power failures, processes beside each other and strangers' files cost at most the last state, and harm nobody."""

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import Future

import psutil
import pytest
import torch
from typer.testing import CliRunner

import curvscope as cs
from curvscope.cli.main import app
from curvscope.errors import DamagedData, InvalidArgument, RunConflict, WorkerError
from curvscope.parallel import Task
from curvscope.store import Draft, Lock, Run, checked_name, printable, remove
from curvscope.store._lock import holder
from curvscope.system import Interruptible

from . import beside, hostile, power, solves

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A finished run, to be copied."""
    run = tmp_path_factory.mktemp("base") / "run"
    solves.solve("krylov", run)
    return run


def fallen(cases):
    return [case for case in cases if not case[1]]


def test_a_power_failure_costs_at_most_the_last_state():
    assert fallen(power.cases()) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_many_power_failures_cost_at_most_the_last_state(seed):
    assert fallen(power.failures(13, seed)) == []


def test_looking_does_not_disturb_and_the_dead_leave_whole_results():
    assert fallen(beside.cases()) == []


@pytest.mark.slow
def test_a_process_that_dies_at_any_file_leaves_whole_results():
    assert fallen(beside.cases(whole=True)) == []


def test_results_stay_until_new_ones_are_complete(base, tmp_path):
    run = shutil.copytree(base, tmp_path / "run")
    code, _ = solves.in_a_fork(lambda: beside._killed_at(12, lambda: solves.solve("krylov", run, k=5)), tmp_path / "report")
    assert code == -signal.SIGKILL
    assert cs.open(run).k == 4
    assert not Run.open(run).in_use


@pytest.mark.slow
@pytest.mark.parametrize("name", hostile.HARMS)
def test_a_run_from_a_stranger_harms_nobody(name):
    assert fallen(hostile.harms((name,))) == []


@pytest.mark.parametrize(
    "name", ["basis is a path to a neighbour", "lock is a link", "basis is a link to a folder", "10^15 rows"]
)
def test_going_on_with_a_run_from_a_stranger_is_refused(name, base, tmp_path):
    outside = tmp_path / "outside"
    (outside / "photos").mkdir(parents=True)
    (outside / "photos" / "a.jpg").write_text("x")
    (outside / "thesis.txt").write_text("my thesis")
    shutil.copytree(base, tmp_path / "run")
    hostile.HARMS[name](tmp_path / "run", outside)
    before = hostile.digest(outside)
    with pytest.raises(DamagedData):
        cs.eigsh(solves.Counting(), 5, method="krylov", tol=0, max_products=80, block_size=2, ncv=16, run=tmp_path / "run")
    assert hostile.digest(outside) == before


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", ".", "", "a" * 300, "a\0", "x\x1b", 7, None, "c:x", "a\\b"])
def test_names_that_are_paths_are_refused(name, tmp_path):
    with pytest.raises(DamagedData, match="expected a plain name") as caught:
        checked_name(name, tmp_path / "state")
    assert len(str(caught.value)) < 400
    assert "\x1b" not in str(caught.value)


def test_nothing_is_written_or_removed_through_a_link(tmp_path):
    mine, folder = tmp_path / "mine.txt", tmp_path / "photos"
    mine.write_text("mine")
    folder.mkdir()
    (folder / "a.jpg").write_text("x")
    run = tmp_path / "run"
    run.mkdir()
    (run / "file").symlink_to(mine)
    with Draft(run / "file") as draft:
        draft.write_text("new")
    assert (mine.read_text(), (run / "file").read_text(), (run / "file").is_symlink()) == ("mine", "new", False)
    (run / "figures").symlink_to(folder)
    remove(run / "figures")
    assert [path.name for path in folder.iterdir()] == ["a.jpg"]
    assert not (run / "figures").exists()


def test_control_characters_are_shown_and_letters_stay():
    assert printable("\x1b]0;x\x07 \u202e \x9b31m Ünïcode µ λ₁ 数\n") == "\\x1b]0;x\\x07 \\u202e \\x9b31m Ünïcode µ λ₁ 数\n"


def test_sigint_that_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruptible("go on") as work:
            os.kill(os.getpid(), signal.SIGINT)
            work.check()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_lock_file_that_says_something_else_is_no_holder(tmp_path):
    for content in ("", "{", "[1]", '{"pid": 1}', json.dumps({"pid": "x", "host": "here", "since": 1})):
        (tmp_path / "lock").write_text(content)
        assert holder(tmp_path) is None or holder(tmp_path)["host"] == "here"
    Lock(tmp_path).take()
    assert holder(tmp_path) is None or holder(tmp_path)["pid"] == os.getpid()


EVIL = """
from pathlib import Path
Path("executed").write_text("x")
def make():
    raise RuntimeError("called")
"""


@pytest.mark.parametrize("command", ["certify", pytest.param("density", marks=pytest.mark.slow), "trace"])
def test_code_that_a_run_from_elsewhere_names_is_not_executed(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    cs.eigsh(solves.network(), 2, method="exact", run="run", progress=False)
    run = Run.open("run")
    run.manifest["options"] = {"target": f"evil_{command}:make", "problem": None}
    run.save()
    (tmp_path / f"evil_{command}.py").write_text(EVIL)
    refused = CliRunner().invoke(app, [command, "run"])
    assert isinstance(refused.exception, InvalidArgument)
    assert "--trust" in str(refused.exception)
    assert not (tmp_path / "executed").exists()
    allowed = CliRunner().invoke(app, [command, "run", "--trust"])
    assert isinstance(allowed.exception, cs.CurvscopeError)
    assert (tmp_path / "executed").exists()
    sys.modules.pop(f"evil_{command}", None)


def test_folders_are_checked_before_the_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    for words in (["density", "--problem", "mnist16", "--out", "file"], ["track", "--problem", "mnist16", "--steps", "-1"]):
        refused = CliRunner().invoke(app, words)
        assert isinstance(refused.exception, RunConflict | InvalidArgument), words
    with pytest.raises(RunConflict, match="cannot be a directory"):
        cs.eigsh(torch.eye(3), 1, run="a" * 5000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


class Hanging:
    """An executor that answers its first task and no other."""

    def __init__(self):
        self.tasks = 0

    def submit(self, function, *arguments):
        self.tasks += 1
        future = Future()
        future.set_running_or_notify_cancel()
        if self.tasks == 1:
            future.set_result(function(*arguments))
        return future


def test_workers_that_hang_after_their_first_task_are_given_up():
    executor = Hanging()
    workers = cs.Workers(executor, count=1, grace=0.001, patience=1.1, attempts=3)
    with pytest.raises(WorkerError, match="none of 3 copies of the same block was answered"):
        list(workers.map(abs, [Task((-1,)), Task((-2,))]))
    assert executor.tasks == 4


OWNER = """
import multiprocessing, os, signal
from concurrent.futures import ProcessPoolExecutor
import curvscope as cs
from curvscope.parallel import Task
if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    print(*cs.Workers(pool).map(os.getpid, [Task(())]), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_processes_of_ones_own_pool_end_with_a_killed_solver(tmp_path):
    (tmp_path / "owner.py").write_text(OWNER)
    process = subprocess.Popen([sys.executable, tmp_path / "owner.py"], stdout=subprocess.PIPE, text=True)
    worker = psutil.Process(int(process.stdout.readline()))
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    worker.wait(timeout=30)
