"""Tasks on executors: order, losses, stragglers, refusals. No operator is needed for that."""

import asyncio
import multiprocessing
import shutil
import socket
import sys
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from curvscope.errors import InvalidArgument, InvalidType, MissingExtra, WorkerError
from curvscope.parallel import Credentials, Task, Workers, _clusters as clusters
from curvscope.parallel._workers import threads_each
from curvscope.system import visible

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
        lambda: Workers.scheduler("tcp://127.0.0.1:1"),
        lambda: Workers.cluster("slurm", jobs=1),
    ):
        with pytest.raises(MissingExtra, match=r"curvscope\[dask\]"):
            hire()


# --- devices ------------------------------------------------------------------------------------------------------------------


def test_every_worker_has_a_gpu_of_its_own():
    assert [visible(i, 4) for i in range(4)] == ["0", "1", "2", "3"]
    assert [visible(i, 2, "GPU-a, GPU-b") for i in range(3)] == ["GPU-a", "GPU-b", "GPU-a"]


# --- batch systems ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def batch(monkeypatch, tmp_path):
    """What dask-jobqueue and the client of its cluster were asked for, without either."""
    pytest.importorskip("dask_jobqueue")
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = {"stopped": []}

    class Job:
        submit_command = "sh"

        async def start(self):
            if "refused" in asked["queue"]:
                raise RuntimeError("Command exited with non-zero exit code.\nstderr:\ninvalid partition\n")

    class Cluster:
        job_cls = Job

        def __init__(self, *, job_cls, security, **settings):
            if "colour" in settings:
                raise TypeError("unexpected argument 'colour'")
            asked.update(settings, job=job_cls, security=security)
            self.loop = type("Loop", (), {"add_callback": staticmethod(asked["stopped"].append)})
            self.scheduler = type("Scheduler", (), {"http_server": type("Server", (), {"stop": "stop"})})

        def scale(self, jobs):
            asked["jobs"] = jobs
            for _ in range(jobs):
                asyncio.run(asked["job"]().start())

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
    assert batch["worker_extra_args"][:3] == ["--nthreads", "1", "--no-dashboard"]


def test_settings_and_systems_that_do_not_exist(batch, tmp_path):
    with pytest.raises(InvalidArgument, match="colour"):
        Workers.cluster("slurm", jobs=1, settings={"colour": "red"})
    with pytest.raises(InvalidArgument, match="choose one of slurm"):
        Workers.cluster("cloud", jobs=1)
    with pytest.raises(InvalidArgument, match=r"slurm refused a job \(invalid partition\)"):
        Workers.cluster("slurm", jobs=2, settings={"queue": "refused"})
    with pytest.raises(InvalidArgument, match="protocol 'tcp://': batch jobs are reached by tls"):
        Workers.cluster("slurm", jobs=1, settings={"protocol": "tcp://"})
    assert not list(tmp_path.glob(".curvscope/*"))


def test_credentials_of_jobs_exist_while_they_run(batch, tmp_path):
    with Workers.cluster("slurm", jobs=1, settings={"queue": "long"}):
        (folder,) = (tmp_path / ".curvscope").iterdir()
        modes = {path.name: path.stat().st_mode & 0o777 for path in (folder.parent, folder, *folder.glob("*.pem"))}
        assert modes == {".curvscope": 0o700, folder.name: 0o700, "certificate.pem": 0o600, "key.pem": 0o600}
        security = batch["security"]
        assert security.require_encryption
        assert security.tls_worker_key == str(folder / "key.pem")
        written = repr({name: value for name, value in batch.items() if name != "security"})
        assert "PRIVATE KEY" not in written
        assert batch["stopped"] == ["stop"]
        assert batch["scheduler_options"] == {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    assert not list((tmp_path / ".curvscope").iterdir())


def test_credentials_of_a_killed_process_go_at_the_next_start(batch, tmp_path):
    alive = Credentials()
    abandoned = Path(shutil.copytree(alive.folder, alive.folder.with_name(alive.folder.name + "x")))  # not locked
    (alive.folder.parent / "notes.txt").write_text("of the user")
    link = alive.folder.with_name(alive.folder.name + "y")
    link.symlink_to(tmp_path)
    with Workers.cluster("slurm", jobs=1, settings={"queue": "long"}):
        assert alive.folder.exists()
        assert not abandoned.exists()
        assert link.is_symlink()
    alive.remove()
    alive.remove()
    assert sorted(path.name for path in (tmp_path / ".curvscope").iterdir()) == sorted(["notes.txt", link.name])


def test_a_folder_for_credentials_that_others_control_is_refused(batch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".curvscope").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidArgument, match="shared_temp_directory"):
        Credentials()
    with pytest.raises(InvalidArgument, match="shared_temp_directory"):
        Credentials(tmp_path / "missing")


def test_certificates_in_dasks_configuration_are_used(batch, tmp_path):
    dask = pytest.importorskip("dask")
    mine = ("ca-file", *(f"{role}.{part}" for role in ("client", "scheduler", "worker") for part in ("cert", "key")))
    with (
        dask.config.set({f"distributed.comm.tls.{name}": "mine.pem" for name in mine}),
        Workers.cluster("slurm", jobs=1, settings={"queue": "long"}),
    ):
        assert batch["security"].tls_worker_key == "mine.pem"
        assert batch["security"].require_encryption
        assert not (tmp_path / ".curvscope").exists()


def test_a_machine_without_the_batch_system_is_told_at_once(tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InvalidArgument, match=r"slurm is not on this machine: there is no command 'sbatch'"):
        Workers.cluster("slurm", jobs=1, settings={"cores": 1, "memory": "1GB"})


@pytest.mark.parametrize(
    ("address", "open_to_others"),
    [
        ("tcp://10.0.0.1:8786", True),
        ("10.0.0.1:8786", True),
        ("tcp://[fe80::1]:8786", True),
        ("tcp://head.cluster", True),
        ("ws://head:1", True),
        ("tcp://0.0.0.0:8786", True),
        ("tcp://127.0.0.1:8786", False),
        ("tcp://[::1]:8786", False),
        ("localhost:8786", False),
        ("tls://head:8786", False),
        ("wss://head:8786", False),
    ],
)
def test_unencrypted_addresses_of_others_are_warned_of(address, open_to_others, caplog, monkeypatch):
    made = type("M", (), {"Client": lambda address, **options: Client()})
    monkeypatch.setattr(clusters, "_imported", lambda module, name="Dask": made)
    monkeypatch.setattr(clusters, "_check_listens", lambda address: None)
    monkeypatch.setattr(clusters, "_check_encryption", lambda address: None)
    clusters.scheduler(address)
    assert len(caplog.messages) == open_to_others
    assert all(address in message and "tls://" in message for message in caplog.messages)


def test_the_job_script_of_slurm():
    jobqueue = pytest.importorskip("dask_jobqueue")
    cluster = jobqueue.SLURMCluster
    command = cluster.job_cls(
        "tcp://127.0.0.1:1", name="0", cores=16, processes=1, memory="64GB", worker_extra_args=["--nthreads", "1"]
    ).job_script()
    assert command.rindex("--nthreads 1") > command.index("--nthreads 16")


def test_dasks_demand_for_encryption_is_honoured():
    dask = pytest.importorskip("dask")
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        dask.config.set({"distributed.comm.require-encryption": True}),
        pytest.raises(InvalidArgument, match="encryption required"),
    ):
        Workers.scheduler(f"tcp://127.0.0.1:{listening.getsockname()[1]}")


# --- nobody answers -----------------------------------------------------------------------------------------------------------


def test_an_executor_that_begins_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr("curvscope.parallel._workers.SECONDS_BETWEEN_CHECKS", 0.0)
    with pytest.raises(WorkerError, match=r"no worker of the Held has begun any of 2 tasks.*start_timeout"):
        list(Workers(Held(), count=1, start_timeout=1e-9).map(abs, [Task((1,)), Task((2,))]))


def test_one_that_works_long_is_only_warned_of(monkeypatch, caplog):
    monkeypatch.setattr("curvscope.parallel._workers.SECONDS_BETWEEN_CHECKS", 0.0)
    monkeypatch.setattr("curvscope.parallel._workers.SECONDS_OF_SILENCE", 1e-9)
    held = Held()
    workers = Workers(held, count=1, start_timeout=1e-9)
    with ThreadPoolExecutor(1) as other:
        task = other.submit(list, workers.map(abs, (begun(held) for _ in range(1))))
        while not caplog.messages:
            pass
        held.finish(0)
        assert task.result() == [7]
    assert "no worker has answered" in caplog.messages[0]


def begun(held):
    submit = held.submit

    def running(function, *arguments):
        future = submit(function, *arguments)
        future.set_running_or_notify_cancel()
        return future

    held.submit = running
    return Task((-7,))


@pytest.mark.parametrize("status", ["closed", "closing"])
def test_a_scheduler_that_ended_is_named(status, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("curvscope.parallel._workers.SECONDS_BETWEEN_CHECKS", 0.0)
    client = Client()
    client.wait_for_workers(1)
    client.submit = lambda function, *arguments, **preferred: setattr(client, "status", status) or Future()
    with pytest.raises(WorkerError, match=r"does not answer any more.*resume"):
        list(Workers(client).map(abs, [Task((1,))]))
    with pytest.raises(WorkerError, match=r"does not answer any more.*resume"):
        list(Workers(client).map(abs, [Task((1,))]))


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

    def close(self):
        pass

    def wait_for_workers(self, count, timeout=None):
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
