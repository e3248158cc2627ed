"""Tasks on executors: order, losses, stragglers, refusals. No operator is needed for that."""

import multiprocessing
import sys
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curvscope.errors import InvalidArgument, InvalidType, MissingExtra, WorkerError
from curvscope.execution import clusters
from curvscope.execution.devices import pin, visible
from curvscope.execution.workers import Task, Workers, threads_each

from .conftest import Immediate


class Held(Executor):
    """Tasks wait until the test finishes them, in any order."""

    def __init__(self):
        self.futures, self.calls = [], []

    def submit(self, function, *arguments):
        self.futures.append(Future())
        self.calls.append((function, arguments))
        return self.futures[-1]

    def finish(self, number):
        function, arguments = self.calls[number]
        self.futures[number].set_result(function(*arguments))


class Dying(Immediate):
    """Some of the tasks that are submitted, by number, lose their worker."""

    def __init__(self, losses):
        self.losses, self.count = losses, 0

    def submit(self, function, *arguments):
        self.count += 1
        if self.count not in self.losses:
            return super().submit(function, *arguments)
        future = Future()
        future.set_exception(BrokenExecutor("a process died"))
        return future


@given(st.lists(st.integers(-9, 9), max_size=20), st.integers(1, 5), st.sets(st.integers(1, 30), max_size=4))
def test_results_come_in_the_order_of_the_tasks_whoever_dies(numbers, count, losses):
    workers = Workers(Dying(losses), count=count)
    assert list(workers.map(abs, [Task((number,)) for number in numbers])) == [abs(number) for number in numbers]


def test_tasks_are_taken_as_they_are_needed():
    taken = []
    tasks = (taken.append(number) or Task((number,)) for number in range(100))
    results = Workers(Immediate(), count=3).map(abs, tasks)
    assert [next(results), next(results)] == [0, 1]
    assert len(taken) <= 2 + 6


def test_those_that_nobody_waits_for_are_cancelled():
    held = Held()
    results = Workers(held, count=2).map(abs, [Task((number,)) for number in range(9)])
    held_when_asked = iter(results)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(next, held_when_asked)
        while not held.futures:
            pass
        held.finish(0)
        assert first.result() == 0
    results.close()
    assert all(future.cancelled() for future in held.futures[1:])


def test_a_straggler_is_overtaken_by_a_copy_of_its_task():
    held = Held()
    workers = Workers(held, count=2, patience=1.5, grace=0.0)
    with ThreadPoolExecutor(1) as other:
        found = other.submit(list, workers.map(abs, [Task((-1,)), Task((-2,))]))
        while len(held.futures) < 2:
            pass
        held.finish(0)  # says how long a task takes
        while len(held.futures) < 3:
            pass
        held.finish(2)  # the copy of the second
        assert found.result() == [1, 2]
    assert held.calls[2] == held.calls[1]
    assert held.futures[1].cancelled()


def test_a_task_that_kills_every_worker_ends_the_run():
    with pytest.raises(WorkerError, match=r"lost its worker 3 times.*memory"):
        list(Workers(Dying(range(99)), count=2, attempts=3).map(abs, [Task((1,))]))


def test_errors_of_the_work_itself_are_not_tried_again():
    executor = Dying(())
    with pytest.raises(ZeroDivisionError):
        list(Workers(executor, count=1).map(divmod, [Task((1, 0))]))
    assert executor.count == 1


def test_what_is_no_executor_is_refused():
    with pytest.raises(InvalidType, match="executor is a int"):
        Workers(3)
    with pytest.raises(InvalidArgument, match="patience"):
        Workers(Immediate(), patience=0.5)
    with pytest.raises(InvalidArgument, match="0 workers"):
        Workers.processes(0)


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_pool_that_forks_is_refused():
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool,
        pytest.raises(InvalidArgument, match="spawn"),
    ):
        Workers(pool)


def test_count_is_that_of_the_pool():
    with ThreadPoolExecutor(3) as pool:
        assert Workers(pool).count == 3


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    for hire in (
        lambda: Workers.local(2),
        lambda: Workers.scheduler("tcp://127.0.0.1:1"),
        lambda: Workers.cluster("slurm", jobs=1),
    ):
        with pytest.raises(MissingExtra, match=r"curvscope\[dask\]"):
            hire()


# --- devices ------------------------------------------------------------------------------------------------------------------


def test_every_worker_has_a_gpu_of_its_own(monkeypatch):
    assert [visible(i, 4) for i in range(4)] == ["0", "1", "2", "3"]
    assert [visible(i, 2, "GPU-a, GPU-b") for i in range(3)] == ["GPU-a", "GPU-b", "GPU-a"]
    options = [clusters.worker_options(i, 1, 2, None)["env"] for i in range(2)]
    assert [option["CUDA_VISIBLE_DEVICES"] for option in options] == ["0", "1"]
    assert "CUDA_VISIBLE_DEVICES" not in clusters.worker_options(0, 1, 0, None)["env"]


def test_processes_of_a_pool_take_gpus_in_turn(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    counter, seen = multiprocessing.get_context("spawn").Value("i", 0), []
    for _ in range(3):
        pin(counter, 2, "4,7")
        seen.append(clusters.os.environ["CUDA_VISIBLE_DEVICES"])
    assert seen == ["4", "7", "4"]


# --- batch systems ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def batch(monkeypatch):
    """What dask-jobqueue and the client of its cluster were asked for, without either."""
    asked = {}

    class Cluster:
        def __init__(self, **settings):
            if "colour" in settings:
                raise TypeError("unexpected argument 'colour'")
            asked.update(settings)

        def scale(self, jobs):
            asked["jobs"] = jobs

        def close(self):
            asked["closed"] = True

    class Client(Immediate):
        def __init__(self, *_, **__):
            pass

        def close(self):
            pass

    modules = {"distributed": type("M", (), {"Client": Client}), "dask_jobqueue": type("M", (), {"SLURMCluster": Cluster})}
    monkeypatch.setattr(clusters, "_imported", lambda module, name="Dask": modules[module])
    return asked


def test_jobs_of_a_batch_system(batch):
    with Workers.cluster("slurm", jobs=15, settings={"cores": 16, "memory": "64GB", "queue": "long"}) as workers:
        assert workers.threads == 16
    assert (batch["jobs"], batch["queue"], batch["closed"]) == (15, "long", True)
    assert batch["worker_extra_args"] == ["--nthreads", "1"]


def test_settings_and_systems_that_do_not_exist(batch):
    with pytest.raises(InvalidArgument, match="colour"):
        Workers.cluster("slurm", jobs=1, settings={"colour": "red"})
    with pytest.raises(InvalidArgument, match="choose one of slurm"):
        Workers.cluster("cloud", jobs=1)


def test_the_job_script_of_slurm():
    jobqueue = pytest.importorskip("dask_jobqueue")
    cluster = jobqueue.SLURMCluster
    command = cluster.job_cls(
        "tcp://127.0.0.1:1", name="0", cores=16, processes=1, memory="64GB", worker_extra_args=["--nthreads", "1"]
    ).job_script()
    assert command.rindex("--nthreads 1") > command.index("--nthreads 16")


# --- workers that come and go -------------------------------------------------------------------------------------------------


class Client:
    """What :class:`.engines.DaskEngine` asks of a Dask client; the first worker comes when somebody waits for it."""

    def __init__(self, dead=()):
        self.addresses, self.dead, self.sent = {}, dead, []

    def get_executor(self, pure):
        return self

    def submit(self, function, *arguments, **preferred):
        self.preferred = preferred
        return Immediate().submit(function, *arguments)

    def nthreads(self):
        return self.addresses

    def wait_for_workers(self, count):
        self.addresses = {f"tcp://{host}:1": 1 for host in ("a", "b")} | {"tcp://b:2": 1}

    def scatter(self, argument, workers=None, hash=True, timeout=None):
        if workers and workers[0] in self.dead:
            raise TimeoutError
        self.sent.append(workers)
        return argument


def test_a_large_array_waits_for_the_first_worker_and_passes_by_a_dead_one():
    pytest.importorskip("distributed")
    client = Client(dead=["tcp://b:1"])
    workers = Workers(client)
    assert workers.count == 1
    with pytest.raises(WorkerError, match="0 of 1 workers came"):
        workers.wait_for(1, seconds=0.0)
    large = np.zeros(1 << 18)
    assert len(list(workers.map(len, [Task((large,), place=i) for i in range(3)]))) == 3
    assert client.sent == [["tcp://a:1"], None, ["tcp://b:2"]]
    assert client.preferred == {"workers": ["tcp://b:2"], "allow_other_workers": True}
    assert workers.share == 0.5
    assert (workers.count, workers.expected, Workers(client, expected=9).expected) == (3, 3, 9)


def test_processes_of_this_machine_share_its_cores():
    with ProcessPoolExecutor(64, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert (Workers(pool).threads, Workers(pool).share) == (threads_each(64), 1 / 64)
    with ThreadPoolExecutor(2) as pool:
        assert (Workers(pool).threads, Workers(pool).share) == (None, 1.0)
