"""Real processes: pools and Dask, and what happens when they are killed."""

import http.client
import itertools
import json
import os
import subprocess
import sys
import urllib.request

import psutil
import pytest
import worker_targets as targets

import curvscope as cs
from curvscope.errors import InvalidArgument, WorkerError
from curvscope.parallel._credentials import remove_abandoned

from .test_products import same

QUIET = {"progress": False}


def check_survival(tmp_path, workers, deaths, *, k=6, **options):
    method = {"block_size": 4, **options.pop("how", {"method": "krylov"}), **QUIET}
    H = cs.Recipe(targets.mortal, folder=str(tmp_path), home=os.getpid(), deaths=deaths, **options).build()
    found = cs.eigsh(H, k, executor=workers, run=tmp_path / "run", **method)
    assert len(list(tmp_path.glob("death-*"))) == deaths
    same(found, cs.eigsh(H, k, **method), 1e-12)


@pytest.mark.slow  # half a minute; that of a pool is a default test
def test_three_workers_are_killed_in_a_run(dask_workers, tmp_path):
    check_survival(tmp_path, dask_workers, 3)


def test_a_worker_is_killed_that_writes_into_the_runs_store(dask_workers, tmp_path):
    check_survival(tmp_path, dask_workers, 1, how={"method": "seigh", "block_size": 1})


def test_a_process_of_a_pool_is_killed(tmp_path):
    with cs.Workers.processes(1, threads=1) as workers:
        check_survival(tmp_path, workers, 1)


@pytest.mark.slow  # half a minute
def test_a_dask_worker_with_another_matrix_is_refused(dask_workers):
    H = cs.Recipe(targets.by_process, home=os.getpid()).build()
    with pytest.raises(WorkerError, match=r"process \d+, is refused.*fingerprint"):
        cs.eigsh(H, 3, method="krylov", executor=dask_workers, **QUIET)


def test_what_fails_in_a_dask_worker_comes_back(dask_workers):
    H = cs.Recipe(targets.failing, home=os.getpid()).build()
    with pytest.raises(WorkerError, match="ZeroDivisionError"):
        cs.eigsh(H, 3, method="krylov", executor=dask_workers, **QUIET)


def test_large_columns_go_past_the_scheduler(dask_workers):
    H = cs.Recipe(targets.spectrum, size=300_000, dtype="float32").build()
    client = dask_workers._engine.client
    found = cs.eigsh(H, 2, method="krylov", tol=0, max_products=8, block_size=2, executor=client, **QUIET)
    same(found, cs.eigsh(H, 2, method="krylov", tol=0, max_products=8, block_size=2, **QUIET), 1e-5)


def test_columns_go_through_the_scheduler_where_workers_die_while_they_are_sent(dask_workers, monkeypatch):
    """As when all workers are killed at once and are not yet back: connecting to them is refused."""
    client = dask_workers._engine.client
    scatter, refused = client.scatter, []

    def sent(data, workers=None, direct=None, **options):
        if direct is not False and len(refused) < 2:
            refused.append(workers)
            raise OSError("Timed out trying to connect")
        return scatter(data, workers=workers, direct=direct, **options)

    monkeypatch.setattr(client, "scatter", sent)
    H = cs.Recipe(targets.spectrum, size=300_000, dtype="float32").build()
    found = cs.eigsh(H, 2, method="krylov", tol=0, max_products=8, block_size=2, executor=client, **QUIET)
    same(found, cs.eigsh(H, 2, method="krylov", tol=0, max_products=8, block_size=2, **QUIET), 1e-5)
    assert len(refused) == 2


def test_nobody_answers(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("curvscope.parallel._clusters.PATIENCE", 0.5)
    with pytest.raises(InvalidArgument, match="no Dask scheduler answers"):
        cs.Workers.scheduler("tcp://127.0.0.1:9")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_many_workers_die_in_a_larger_run(dask_workers, tmp_path, seed):
    check_survival(tmp_path, dask_workers, 3, k=30, size=200_000, rank=40, seed=seed)


SBATCH = """#!/bin/sh
# What Slurm would do with a job: start it, some time, and say its number.
cp "$1" "{folder}/job.sh"
setsid sh "{folder}/job.sh" >"{folder}/job.log" 2>&1 &
echo $! > "{folder}/pid"
echo "Submitted batch job 7"
"""
SCANCEL = """#!/bin/sh
kill -- -$(cat "{folder}/pid")
"""


def install_slurm(folder, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    for name, content in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (folder / name).write_text(content.format(folder=folder))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(folder))


def settings_here(folder):
    prologue = [f"export PYTHONPATH={':'.join(filter(None, sys.path))}"]
    place = {"interface": "lo", "log_directory": str(folder), "job_script_prologue": prologue}
    return {"cores": 1, "memory": "2GB", **place}


STRANGER = """
import sys
from distributed import Client

if len(sys.argv) > 2:
    __import__("os").setuid(int(sys.argv[2]))
for scheme in ("tcp", "tls"):
    try:
        with Client(f"{scheme}://127.0.0.1:{sys.argv[1]}", timeout=5) as client:
            print("ran as", client.run_on_scheduler(lambda: 1), client.run(lambda: 1), flush=True)
    except Exception as error:
        print("refused", type(error).__name__, flush=True)
"""


def listening(*processes):
    """The TCP ports at which processes and their children listen."""
    all_of_them = [other for process in processes for other in (process, *process.children(recursive=True))]
    found = [c for process in all_of_them if process.is_running() for c in process.net_connections("tcp")]
    return {connection.laddr.port for connection in found if connection.status == "LISTEN"}


def check_nobody_else_is_answered(tmp_path, others):
    """Ask every port of this process and of the job but those of others, without credentials; as root also as another user."""
    ports = listening(psutil.Process(), psutil.Process(int((tmp_path / "pid").read_text()))) - others
    assert len(ports) >= 3  # of scheduler, nanny and worker
    users = [[], ["65534"]] if os.getuid() == 0 else [[]]
    for port, user in itertools.product(ports, users):
        stranger = subprocess.Popen([sys.executable, "-c", STRANGER, str(port), *user], stdout=subprocess.PIPE, text=True)
        psutil.wait_procs([stranger], timeout=60)  # Dask waits long for a port that speaks HTTP
        stranger.kill()
        said = stranger.communicate()[0]
        assert "ran as" not in said, (port, user, said)
        assert not said or "refused" in said
        with pytest.raises((OSError, http.client.HTTPException)):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/info/main/workers.html", timeout=10)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="shell scripts")
def test_a_job_of_slurm(tmp_path, monkeypatch):
    """Through dask-jobqueue, with a Slurm that runs its jobs here."""
    install_slurm(tmp_path, monkeypatch)
    H = cs.Recipe(targets.spectrum).build()
    others = listening(psutil.Process())  # of the clusters that other tests use, which are open on purpose
    with cs.Workers.cluster("slurm", jobs=1, settings=settings_here(tmp_path)) as workers:
        assert workers.threads == 1
        found = cs.eigsh(H, 3, method="krylov", block_size=2, executor=workers, **QUIET)
        check_nobody_else_is_answered(tmp_path, others)
    assert not list((tmp_path / ".curvscope").iterdir())
    written = (tmp_path / "job.sh").read_text() + (tmp_path / "job.log").read_text()
    assert "tls://" in written
    assert "PRIVATE KEY" not in written
    same(found, cs.eigsh(H, 3, method="krylov", block_size=2, **QUIET), 1e-12)


SOLVER = """
import json, os, signal, sys
import curvscope as cs

workers = cs.Workers.cluster("slurm", jobs=1, settings=json.loads(sys.argv[1]))
workers.wait_for(1)
END
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="shell scripts")
@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "raise KeyboardInterrupt", "sys.exit()"])
def test_a_solver_that_ends_leaves_no_job_and_no_credentials(tmp_path, monkeypatch, end):
    install_slurm(tmp_path, monkeypatch)
    command = [sys.executable, "-c", SOLVER.replace("END", end), json.dumps(settings_here(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True)
    folders = list((tmp_path / ".curvscope").iterdir())
    assert len(folders) == ("KILL" in end), done.stderr
    group = int((tmp_path / "pid").read_text())
    job = [process for process in psutil.process_iter() if group_of(process) == group]
    _, alive = psutil.wait_procs(job, timeout=120)
    assert not alive
    assert remove_abandoned(tmp_path / ".curvscope") == folders
    assert not list((tmp_path / ".curvscope").iterdir())


def group_of(process):
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None
