"""Dask clusters: on this machine, one that runs already, or jobs of a batch system. Dask is imported when asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from curvscope.errors import InvalidArgument, MissingExtra
from curvscope.execution.devices import visible

BATCH_SYSTEMS = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "sge": "SGECluster", "lsf": "LSFCluster"}
PATIENCE = 30.0
"""Seconds to wait for a scheduler."""
Closing = Callable[[], None]


def local(count: int, threads: int, gpus: int) -> tuple[Any, Closing]:
    """A client of ``count`` fresh processes on this machine, without a dashboard, and what ends them."""
    distributed = _imported("distributed")
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    workers = {i: {"cls": distributed.Nanny, "options": worker_options(i, threads, gpus, seen)} for i in range(count)}
    place = {"host": "127.0.0.1", "protocol": "tcp://", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    cluster = distributed.SpecCluster(
        workers=workers, scheduler={"cls": distributed.Scheduler, "options": place}, silence_logs=40
    )
    return _connected(distributed, cluster)


def worker_options(number: int, threads: int, gpus: int, seen: str | None) -> dict[str, Any]:
    """How one worker on this machine is started: one product at a time, its threads, its GPU."""
    environment = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    if (device := visible(number, gpus, seen)) is not None:
        environment["CUDA_VISIBLE_DEVICES"] = device
    return {
        "host": "127.0.0.1",
        "nthreads": 1,
        "memory_limit": 0,  # our own bound holds; Dask's would kill workers in the middle of a product
        "dashboard": False,
        "dashboard_address": "127.0.0.1:0",
        "env": environment,
        "silence_logs": 40,
    }


def scheduler(address: str) -> tuple[Any, Closing]:
    """A client of the scheduler at an address, and what ends the connection (not the scheduler)."""
    distributed = _imported("distributed")
    try:
        client = distributed.Client(address, timeout=PATIENCE, direct_to_workers=True)
    except (OSError, TimeoutError, ValueError) as error:
        raise InvalidArgument(
            f"no Dask scheduler answers at {address!r} ({error}): pass the address that `dask scheduler` prints, such as "
            "tcp://10.0.0.1:8786"
        ) from error
    return client, client.close


def cluster(kind: str, jobs: int, settings: dict[str, Any]) -> tuple[Any, Closing, int | None]:
    """A client of so many batch jobs, what ends them, and the threads of a worker where the settings tell."""
    if kind not in BATCH_SYSTEMS:
        raise InvalidArgument(f"cluster {kind!r}: choose one of {', '.join(BATCH_SYSTEMS)}")
    distributed = _imported("distributed")
    made = getattr(_imported("dask_jobqueue", "dask-jobqueue"), BATCH_SYSTEMS[kind])
    settings.setdefault("scheduler_options", {"dashboard": False, "dashboard_address": ":0"})
    settings.setdefault("processes", 1)
    # One product at a time: the threads are PyTorch's, not Dask's.
    settings["worker_extra_args"] = [*settings.get("worker_extra_args", []), "--nthreads", "1"]
    try:
        asked = made(**settings)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"the settings for {kind} do not work ({error}): see dask-jobqueue's {made.__name__}") from error
    asked.scale(jobs=jobs)
    threads = settings["cores"] // settings["processes"] if "cores" in settings else None
    return (*_connected(distributed, asked), threads)


def _connected(distributed: ModuleType, asked: Any) -> tuple[Any, Closing]:
    client = distributed.Client(asked, direct_to_workers=True)

    def close() -> None:
        client.close()
        asked.close()

    return client, close


def _imported(module: str, name: str = "Dask") -> ModuleType:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{name} is not installed: pip install 'curvscope[dask]'; on one machine Workers.processes(n) does without"
        ) from error
