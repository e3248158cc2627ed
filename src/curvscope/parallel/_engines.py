"""What executors have in common for us: submit, count, tell a lost worker from an error; pools and Dask."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from math import inf
from typing import Any, Protocol

import numpy as np

from curvscope.errors import InvalidArgument, InvalidType, WorkerError
from curvscope.parallel._pool import LocalPool, with_owner

log = logging.getLogger(__name__)

INLINE = 1 << 20
"""Bytes of an array up to which it travels with the task; larger ones go to a Dask worker straight, past the scheduler."""
SECONDS_BETWEEN_QUESTIONS = 2.0
"""For how long a cluster is taken to have the workers that it had."""
SECONDS_BETWEEN_LOOKS = 0.1
"""While a client reconnects."""
SECONDS_BETWEEN_REMINDERS = 60.0
"""While there is no worker."""
SECONDS_TO_SEND = 5
"""After which a worker that cannot be found is given up; a slow transfer is not."""


class Engine(Protocol):
    """Adapter of an executor that runs functions in other processes."""

    name: str
    is_local: bool
    """Whether it is processes of this machine, which share its cores."""

    @property
    def count(self) -> int:
        """Tasks that it works on at a time, at the moment."""

    @property
    def share(self) -> float:
        """Of a machine's memory, what each worker may count on."""

    def submit(self, function: Callable[..., Any], *arguments: Any, place: int | None = None) -> Future[Any]:
        """Have it called, some time; by the worker of that number where there is a choice."""

    def loss(self, future: Future[Any]) -> BaseException | None:
        """Return why a finished future has no result though the function did not fail; None if it has one, or failed."""

    def has_begun(self, future: Future[Any]) -> bool:
        """Return whether somebody works, or may be working, on an unfinished task."""

    def check(self) -> None:
        """Raise WorkerError if nobody can ever finish the tasks; called now and then while results are awaited."""

    def close(self) -> None:
        """Let go of what it opened itself."""


def engine_of(executor: Any) -> Engine:
    """The engine of an executor, a pool or a Dask client.

    Raises:
        InvalidType: neither. InvalidArgument: a pool whose processes are forked.
    """
    if hasattr(executor, "get_executor") and hasattr(executor, "scatter"):
        return DaskEngine(executor)
    client = getattr(executor, "_client", None)
    if client is not None and hasattr(client, "scatter"):
        return DaskEngine(client)
    if not hasattr(executor, "submit"):
        raise InvalidType(
            f"executor is a {type(executor).__name__}: pass an executor of concurrent.futures, a dask.distributed.Client, or "
            "curvscope.Workers"
        )
    return PoolEngine(executor)


class PoolEngine:
    """Any executor of the ``concurrent.futures`` kind; a broken process pool is replaced by one like it."""

    def __init__(self, executor: Executor) -> None:
        context = getattr(executor, "_mp_context", None)
        if isinstance(executor, ProcessPoolExecutor) and context is not None and context.get_start_method() == "fork":
            raise InvalidArgument(
                "the pool forks its processes, which PyTorch's derivatives do not survive: make it with "
                "ProcessPoolExecutor(n, mp_context=multiprocessing.get_context('spawn')), or curvscope.Workers.processes(n)"
            )
        self.executor, self.name = executor, type(executor).__name__
        self.is_local = isinstance(executor, ProcessPoolExecutor | LocalPool)
        self._own = False

    @property
    def count(self) -> int:
        """The size of the pool, where it tells."""
        if isinstance(self.executor, LocalPool):
            return self.executor.count
        return getattr(self.executor, "_max_workers", None) or os.cpu_count() or 1

    @property
    def share(self) -> float:
        """Processes of this machine share it; threads share the operator."""
        return 1 / self.count if self.is_local else 1.0

    def submit(self, function: Callable[..., Any], *arguments: Any, place: int | None = None) -> Future[Any]:
        """See :class:`Engine`; pools other than ours give no choice of the process."""
        if isinstance(self.executor, LocalPool) and place is not None:
            return self.executor.submit_to(place, function, *arguments)
        if isinstance(self.executor, ProcessPoolExecutor):
            function, arguments = with_owner, (function, *arguments)
        try:
            return self.executor.submit(function, *arguments)
        except BrokenExecutor as error:
            self._replace(error)
            return self.executor.submit(function, *arguments)

    def loss(self, future: Future[Any]) -> BaseException | None:
        """See :class:`Engine`."""
        if future.cancelled():
            return CancelledError("cancelled by the executor")
        error = future.exception()
        return error if isinstance(error, BrokenExecutor) else None

    def has_begun(self, future: Future[Any]) -> bool:
        """See :class:`Engine`; our own processes may take long to start, and report it if they cannot."""
        return self.is_local or future.running() or future.done()

    def check(self) -> None:
        """See :class:`Engine`; a pool reports what it lost."""

    def close(self) -> None:
        """End a pool that took the place of a broken one."""
        if self._own:
            shut_down(self.executor)

    def _replace(self, error: BrokenExecutor) -> None:
        broken = self.executor
        if not isinstance(broken, ProcessPoolExecutor):
            raise error
        old: Any = broken  # what it was made with is private
        self.executor = ProcessPoolExecutor(
            old._max_workers, mp_context=old._mp_context, initializer=old._initializer, initargs=old._initargs
        )
        if self._own:
            shut_down(broken)
        self._own = True


class DaskEngine:
    """A ``dask.distributed`` client. Dask gives a dead worker's tasks to others; after several deaths we submit them again."""

    name = "dask.distributed"
    is_local = False

    def __init__(self, client: Any) -> None:
        from distributed.scheduler import KilledWorker

        self.client = client
        self._executor = client.get_executor(pure=False)
        self._killed = (KilledWorker, CancelledError)
        self._turn, self._asked = 0, -inf
        self._known: list[str] = []
        self._where = f"the Dask scheduler at {getattr(getattr(client, 'scheduler', None), 'address', 'an unknown address')}"

    @property
    def count(self) -> int:
        """Workers that are there now: each computes one product at a time, whatever threads it has."""
        return len(self._places())

    @property
    def share(self) -> float:
        """As many parts as there are workers on the host that has most of them."""
        hosts = Counter(address.rsplit(":", 1)[0] for address in self._places())
        return 1 / max(hosts.values(), default=1)

    def submit(self, function: Callable[..., Any], *arguments: Any, place: int | None = None) -> Future[Any]:
        """See :class:`Engine`; large arrays are sent ahead, to the chosen worker or to one after the other."""
        places = self._places()
        if not places:
            self._await_first_worker()
            places = self._places()
        self._turn += 1
        chosen = places[(self._turn if place is None else place) % len(places) :][:1]
        preferred = {} if place is None else {"workers": chosen, "allow_other_workers": True}
        sent = (self._sent(argument, chosen) for argument in arguments)
        future: Future[Any] = self._executor.submit(function, *sent, **preferred)
        return future

    def _sent(self, argument: Any, chosen: list[str]) -> Any:
        if not isinstance(argument, np.ndarray) or argument.nbytes <= INLINE:
            return argument
        for workers in (chosen or None, None):
            with contextlib.suppress(OSError, TimeoutError, KeyError, ValueError):  # each may have died a moment ago
                return self.client.scatter(argument, workers=workers, hash=False, timeout=SECONDS_TO_SEND)
            self._asked = -inf
        return self.client.scatter(
            argument, hash=False, direct=False
        )  # through the scheduler, which waits for those that restart

    def _places(self) -> list[str]:
        """Addresses of the workers, as they were a moment ago: to ask the scheduler takes a round trip."""
        if time.monotonic() - self._asked > SECONDS_BETWEEN_QUESTIONS:
            self.check()
            try:
                self._known, self._asked = sorted(self.client.nthreads()), time.monotonic()
            except Exception as error:
                self.check()
                raise self._gone() from error
        return self._known

    def _await_first_worker(self) -> None:
        """Wait for a worker; the first of them may be in the queue of a batch system for hours."""
        while True:
            self.check()
            try:
                self.client.wait_for_workers(1, timeout=SECONDS_BETWEEN_REMINDERS)
            except TimeoutError:
                log.warning("%s has no worker yet: look at the queue, or at the workers' logs", self._where)
            except Exception as error:
                raise self._gone() from error
            else:
                self._asked = -inf
                return

    def has_begun(self, future: Future[Any]) -> bool:
        """See :class:`Engine`; Dask does not say so, but it gives tasks to workers at once."""
        return True

    def check(self) -> None:
        """See :class:`Engine`: a client that lost its scheduler tries to reconnect for a while, then it is closed."""
        while getattr(self.client, "status", "running") == "connecting":
            time.sleep(SECONDS_BETWEEN_LOOKS)
        if getattr(self.client, "status", "running") not in ("running", "newly-created"):
            raise self._gone()

    def _gone(self) -> WorkerError:
        return WorkerError(
            f"{self._where} does not answer any more: it was ended, or the network is down. Nothing saved in a run is lost: "
            "start the scheduler and its workers again, and run the same command again to resume"
        )

    def loss(self, future: Future[Any]) -> BaseException | None:
        """See :class:`Engine`; data that died with its worker counts as a loss, too."""
        if future.cancelled():
            self._asked = -inf
            return CancelledError("its data was lost with a worker, or the scheduler let go of it")
        error = future.exception()
        lost = isinstance(error, self._killed) or type(error).__name__ in ("FutureCancelledError", "FuturesCancelledError")
        if lost:  # who lost it may be gone
            self._asked = -inf
        return error if lost else None

    def close(self) -> None:
        """Nothing was opened here."""


def shut_down(executor: Executor) -> None:
    """End a pool without waiting for what it still does."""
    running = list((getattr(executor, "_processes", None) or {}).values())
    executor.shutdown(wait=False, cancel_futures=True)
    for process in running:
        process.terminate()
    for process in running:
        process.join()
