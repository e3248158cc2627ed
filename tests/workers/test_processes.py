"""Real processes: pools and Dask, and what happens when they are killed."""

import os

import pytest
import worker_targets as targets

import curvscope as cs
from curvscope.errors import InvalidArgument, WorkerError

from .test_products import same

QUIET = {"progress": False}


def check_survival(tmp_path, workers, deaths, *, k=6, **options):
    method = {"block_size": 4, **options.pop("how", {"method": "krylov"}), **QUIET}
    H = cs.Recipe(targets.mortal, folder=str(tmp_path), home=os.getpid(), deaths=deaths, **options).build()
    found = cs.eigsh(H, k, executor=workers, run=tmp_path / "run", **method)
    assert len(list(tmp_path.glob("death-*"))) == deaths
    same(found, cs.eigsh(H, k, **method), 1e-12)


def test_three_workers_are_killed_in_a_run(dask_workers, tmp_path):
    check_survival(tmp_path, dask_workers, 3)


def test_a_worker_is_killed_that_writes_into_the_runs_store(dask_workers, tmp_path):
    check_survival(tmp_path, dask_workers, 1, how={"method": "seigh", "block_size": 1})


def test_a_process_of_a_pool_is_killed(tmp_path):
    with cs.Workers.processes(2, threads=1) as workers:
        check_survival(tmp_path, workers, 1)


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


def test_nobody_answers(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("curvscope.execution.clusters.PATIENCE", 0.5)
    with pytest.raises(InvalidArgument, match="no Dask scheduler answers"):
        cs.Workers.scheduler("tcp://127.0.0.1:9")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_many_workers_die_in_a_larger_run(dask_workers, tmp_path, seed):
    check_survival(tmp_path, dask_workers, 3, k=30, size=200_000, seed=seed)
