"""Processes behind pipes: results, losses, endings, and that nothing can be reached from outside."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import CancelledError

import numpy as np
import psutil
import pytest
from pool_targets import Unreadable, environment, fail, hang, leave, refuse, unpicklable

from curvscope.errors import CurvscopeError, InvalidArgument, WorkerError
from curvscope.parallel._pool import LocalPool, ProcessDied, packed, read, send, unpacked

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@pytest.fixture(scope="module")
def pool():
    with LocalPool(2, gpus=2) as made:
        yield made


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(24.0).reshape(4, 6)[::2, 1:],
        np.zeros((0, 3)),
        np.array(7, dtype=np.float32),
        np.random.default_rng(0).standard_normal(1 << 19),  # larger than a pipe holds
    ],
    ids=["C", "Fortran", "strided", "empty", "scalar", "large"],
)
def test_arrays_return_bit_for_bit(pool, array):
    found = pool.submit(np.asarray, array).result()
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    np.testing.assert_array_equal(found, array)


def test_calls_for_one_process_stay_there(pool):
    first = {pool.submit_to(number, os.getpid).result() for number in (0, 2, 4)}
    second = {pool.submit_to(number, os.getpid).result() for number in (1, 3)}
    assert len(first) == len(second) == 1
    assert first | second == set(pool.pids)


def test_every_process_has_its_gpu(pool):
    assert [pool.submit_to(i, environment, "CUDA_VISIBLE_DEVICES").result() for i in (0, 1)] == ["0", "1"]


def test_a_death_costs_its_own_task_alone(pool):
    before = {number: pool.submit_to(number, os.getpid).result() for number in (0, 1)}
    with pytest.raises(ProcessDied, match="SIGKILL" if hasattr(signal, "SIGKILL") else "ended"):
        pool.submit_to(0, os.kill, before[0], getattr(signal, "SIGKILL", signal.SIGTERM)).result()
    assert pool.submit_to(1, os.getpid).result() == before[1]
    assert pool.submit_to(0, os.getpid).result() not in before.values()
    assert pool.submit_to(0, environment, "CUDA_VISIBLE_DEVICES").result() == "0"


@pytest.mark.parametrize(
    ("function", "arguments", "expected", "message"),
    [
        (leave, (0,), WorkerError, "SystemExit: 0"),
        (leave, ("no data",), WorkerError, "SystemExit: no data"),
        (unpicklable, (), AttributeError, "pickle"),
        (refuse, (), CurvscopeError, "asymmetric"),
        (fail, (), InvalidArgument, "k=0"),
        (divmod, (1, 0), ZeroDivisionError, "zero"),
        (len, (Unreadable(),), InvalidArgument, "k=0"),
    ],
)
def test_errors_return_and_the_process_stays(pool, function, arguments, expected, message):
    before = pool.submit_to(0, os.getpid).result()
    with pytest.raises(expected, match=message) as raised:
        pool.submit_to(0, function, *arguments).result()
    assert type(raised.value) is not SystemExit
    assert pool.submit_to(0, os.getpid).result() == before


def test_what_cannot_be_pickled_is_refused_at_once(pool):
    with pytest.raises((TypeError, AttributeError), match="pickle"):
        pool.submit(len, threading.Lock())


@POSIX
def test_no_process_of_a_pool_listens(pool):
    processes = [psutil.Process(), *(psutil.Process(pid) for pid in pool.pids)]
    for process in processes[1:]:
        assert not [c for c in process.net_connections("all") if c.status == "LISTEN" or (c.family != 1 and c.laddr)]
        assert not [c.laddr for c in process.net_connections("unix") if c.laddr]  # sockets with a name in the file system


def test_closed_pools_take_nothing_and_leave_nobody():
    pool = LocalPool(1)
    (pid,) = pool.pids
    running = pool.submit(hang)
    while not running.running():
        pass
    waiting = pool.submit(pow, 2, 3)
    pool.terminate()
    assert not psutil.pid_exists(pid)
    with pytest.raises(ProcessDied):
        running.result()
    with pytest.raises(CancelledError):
        waiting.result()
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(pow, 2, 3)
    pool.terminate()


def test_messages_larger_than_a_pipe_and_the_end_of_one():
    import multiprocessing

    ours, theirs = multiprocessing.Pipe()
    big = np.arange(1 << 18)
    thread = threading.Thread(target=send, args=(theirs, packed({"x": big, "y": [big[:3], "z"]})))
    thread.start()
    found = unpacked(read(ours))
    thread.join()
    np.testing.assert_array_equal(found["x"], big)
    found["x"][0] = 5  # writable
    theirs.close()
    with pytest.raises(EOFError):
        unpacked(read(ours))


OWNER = """
import os, signal, sys, threading
from curvscope.parallel._pool import LocalPool

def hang():
    threading.Event().wait()

if __name__ == "__main__":
    pool = LocalPool(1)
    pool.submit(os.getpid).result()
    busy = [pool.submit(hang)]
    while not busy[0].running():
        pass
    print(*pool.pids, flush=True)
    END
"""


@POSIX
@pytest.mark.parametrize(
    "end",
    [
        "os.kill(os.getpid(), signal.SIGKILL)",
        pytest.param("os.kill(os.getpid(), signal.SIGTERM)", marks=pytest.mark.slow),
        pytest.param("sys.exit(3)", marks=pytest.mark.slow),
        pytest.param("pass", marks=pytest.mark.slow),
        pytest.param("raise KeyboardInterrupt", marks=pytest.mark.slow),
        pytest.param("os._exit(1)", marks=pytest.mark.slow),
    ],
)
def test_processes_end_with_their_owner(tmp_path, end):
    script = tmp_path / "owner.py"
    script.write_text(textwrap.dedent(OWNER).replace("END", end))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    children = [int(word) for word in done.stdout.split()]
    assert len(children) == 1, done.stderr
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in children if psutil.pid_exists(pid)], timeout=30)
    assert not alive


UNGUARDED = """
from curvscope.parallel._pool import LocalPool
pool = LocalPool(1)
try:
    pool.submit(pow, 2, 3).result()
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_told(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(textwrap.dedent(UNGUARDED))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert "ProcessDied" in done.stdout
    assert "__main__" in done.stdout


@POSIX
def test_ctrl_c_is_left_to_the_owner(pool):
    pid = pool.submit_to(0, os.getpid).result()
    os.kill(pid, signal.SIGINT)
    assert pool.submit_to(0, os.getpid).result() == pid
