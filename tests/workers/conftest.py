import sys
from concurrent.futures import Executor, Future
from pathlib import Path

import pytest

import curvscope as cs

sys.path.insert(0, str(Path(__file__).parent))  # where workers find what the tests have them build


class Immediate(Executor):
    """Does the work when it is asked for: an executor without threads or processes."""

    def submit(self, function, *arguments):
        future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:  # noqa: BLE001 -- whatever the work raises
            future.set_exception(error)
        return future


@pytest.fixture
def immediate():
    return lambda count: cs.Workers(Immediate(), count=count)


@pytest.fixture(scope="session")
def dask_workers():
    """Two processes on this machine under Dask: one cluster for all tests, as it starts slowly."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address="127.0.0.1:0") as cluster,
        distributed.Client(cluster, direct_to_workers=True) as client,
        cs.Workers(client, threads=1) as workers,
    ):
        yield workers
