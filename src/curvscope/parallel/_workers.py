"""Tasks on any executor, their results in order: what is lost is done again, and nobody is waited for forever."""

from __future__ import annotations

import logging
import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from math import inf
from types import TracebackType
from typing import Any, Literal, NamedTuple

import torch

from curvscope.errors import InvalidArgument, WorkerError
from curvscope.parallel import _clusters as clusters
from curvscope.parallel._engines import Engine, engine_of
from curvscope.parallel._pool import LocalPool
from curvscope.system import checked

log = logging.getLogger(__name__)

SECONDS_BETWEEN_CHECKS = 5.0
"""How often we look whether anybody is still there while we wait."""
SECONDS_OF_SILENCE = 60.0
"""After which a person is told that no worker has ever answered; then again after twice the time."""
MEMORY_OF_DURATIONS = 64
"""Tasks that the median duration is taken over."""


class Task(NamedTuple):
    """A call: its arguments, its size in any unit (how long it takes is proportional to that), the worker that it prefers."""

    arguments: tuple[Any, ...]
    size: float = 1.0
    place: int | None = None


@dataclass
class _Pending:
    """A task whose result is not there yet, and the attempts at it: when each was submitted."""

    number: int
    task: Task
    attempts: dict[Future[Any], float] = field(default_factory=dict)
    losses: int = 0


class Workers:
    """Executor that computes products, with the number of its workers and the patience with them.

    Takes anything with the ``concurrent.futures`` interface, or a ``dask.distributed.Client``. A task whose worker died is
    done again; of one that takes many times the median, another copy is started and the first result counts. As a context
    manager it closes what :meth:`processes`, :meth:`local`, :meth:`scheduler` or :meth:`cluster` opened: an executor of
    yours stays open.

    Args:
        executor: who works.
        count: tasks at a time; default: the processes of a pool, the workers that a Dask cluster has at the moment.
        expected: how many there will be, where they come one by one; blocks are made for as many.
        threads: PyTorch's threads in every worker; default: an even share of the cores for processes of this machine; None
            leaves what others have.
        share: of a machine's memory, what one worker may count on; default 1 / n for n workers on one machine.
        attempts: how often a task may lose its worker before the run is given up.
        patience: multiples of the median duration after which another copy is started.
        grace: seconds before which none is started, however short the tasks are.
        start_timeout: seconds after which an executor that has begun no task is given up; ``math.inf`` for one that never
            tells that it has begun. Those who work may take as long as they need, with a warning until the first result.

    Raises:
        InvalidType: not an executor. InvalidArgument: numbers that cannot work; a pool that forks (PyTorch's derivatives
            do not survive it).

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(2) as pool:
    ...     list(Workers(pool).map(pow, [Task((2, 3)), Task((2, 4))]))
    [8, 16]
    """

    @checked
    def __init__(  # noqa: PLR0913 -- limits of waiting, all by keyword
        self,
        executor: Any,
        *,
        count: int | None = None,
        expected: int | None = None,
        threads: int | None = None,
        share: float | None = None,
        attempts: int = 5,
        patience: float = 5.0,
        grace: float = 10.0,
        start_timeout: float = 50.0,
        close: Callable[[], None] | None = None,
    ) -> None:
        possible = (count is None or count >= 1) and attempts >= 1 and patience > 1 and start_timeout > 0
        if not possible or not (share is None or 0 < share <= 1):
            raise InvalidArgument(
                f"count={count}, attempts={attempts}, patience={patience}, share={share}, start_timeout={start_timeout}: "
                "choose count and attempts of at least 1, patience above 1, a share in (0, 1], a positive start_timeout"
            )
        self._engine: Engine = engine_of(executor)
        self._count, self._expected, self._share = count, expected, share
        self.threads = threads_each(self._engine.count) if threads is None and self._engine.is_local else threads
        self.attempts, self.patience, self.grace = attempts, patience, grace
        self._close = close
        self.start_timeout = start_timeout
        self._paces: dict[Callable[..., Any], deque[float]] = {}
        self._reminder = SECONDS_OF_SILENCE

    @classmethod
    def processes(cls, count: int, *, threads: int | None = None, gpus: int | None = None, **options: Any) -> Workers:
        """``count`` processes on this machine, ``threads`` each; default: its cores divided by count.

        They are reached through anonymous pipes and open no port, see :class:`.LocalPool`. One that dies is replaced, and they
        end with this process, however that ends. With GPUs (``gpus``: how many; default those that PyTorch sees) each process
        sees one of them, in turn. Scripts that call this need the usual ``if __name__ == "__main__":``, as the processes
        import them.
        """
        _check_count(count)
        pool = LocalPool(count, gpus=torch.cuda.device_count() if gpus is None else gpus)
        return cls(pool, threads=threads, close=pool.terminate, **options)

    @classmethod
    def local(cls, count: int, **options: Any) -> Workers:
        """Earlier name of :meth:`processes`."""
        return cls.processes(count, **options)

    @classmethod
    def scheduler(cls, address: str, **options: Any) -> Workers:
        """The workers of a Dask scheduler that runs already, such as ``"tls://10.0.0.1:8786"``.

        Dask's configuration gives the certificates of ``tls://`` (``distributed.comm.tls``) and may refuse anything else
        (``distributed.comm.require-encryption``). An unencrypted address of another machine is warned of.

        Raises:
            MissingExtra: Dask is not installed. InvalidArgument: nobody answers there, or the configuration refuses it.
        """
        client, close = clusters.scheduler(address)
        return cls(client, close=close, **options)

    @classmethod
    def cluster(
        cls,
        kind: Literal["slurm", "pbs", "sge", "lsf"],
        *,
        jobs: int,
        settings: dict[str, Any] | None = None,
        **options: Any,
    ) -> Workers:
        """``jobs`` batch jobs of "slurm", "pbs", "sge" or "lsf" through dask-jobqueue; they end with :meth:`close`.

        Connections are encrypted, and made only with the certificate of this call. Jobs read it in a folder of mode 0700 in
        the home directory (``settings["shared_temp_directory"]``: in another one), which is removed at the end. Certificates
        in Dask's own configuration are used instead where there are some.

        Args:
            kind: of the batch system.
            jobs: how many; work begins with the first that runs.
            settings: as for dask-jobqueue's ``SLURMCluster`` and the others (cores, memory, queue, walltime, ...); where they
                say nothing, its own configuration file does. ``cores`` are the PyTorch threads of a worker unless
                ``processes`` says that a job has several.
            options: see :class:`Workers`.

        Raises:
            MissingExtra: Dask, dask-jobqueue or cryptography is not installed. InvalidArgument: another kind, a machine without
                its commands, settings that it refuses.
        """
        _check_count(jobs)
        client, close, threads = clusters.cluster(kind, jobs, dict(settings or {}))
        return cls(client, close=close, **{"threads": threads, "expected": jobs, **options})

    @property
    def count(self) -> int:
        """Tasks that are worked on at a time, at the moment; at least 1."""
        return self._count or max(1, self._engine.count)

    @property
    def expected(self) -> int:
        """Number of workers, now or soon."""
        return max(self.count, self._expected or 1)

    @property
    def share(self) -> float:
        """Of a machine's memory, what one of them may count on."""
        return self._share or self._engine.share

    @property
    def description(self) -> dict[str, Any]:
        """For a run's manifest."""
        return {"engine": self._engine.name, "workers": self.count, "threads": self.threads}

    def map(self, function: Callable[..., Any], tasks: Iterable[Task], *, ahead: int = 2) -> Iterator[Any]:
        """``function(*task.arguments)`` for every task, in their order; tasks are taken as needed, ``ahead`` a worker.

        Raises:
            WorkerError: a task lost its workers too often, nobody begins any, or a scheduler is gone. Whatever the function
                raises.
        """
        coming = enumerate(tasks)
        done: dict[int, Any] = {}
        pending: dict[int, _Pending] = {}
        due, most = 0, ahead * self.count
        try:
            while True:
                while len(pending) + len(done) < most and (following := next(coming, None)) is not None:
                    number, task = following
                    pending[number] = self._start(function, _Pending(number, task))
                if due in done:
                    yield done.pop(due)
                    due += 1
                elif not pending:
                    return
                else:
                    done |= self._some(function, pending)
        finally:
            _cancel(future for waiting in pending.values() for future in waiting.attempts)

    def wait_for(self, count: int, seconds: float = 120.0) -> None:
        """Until at least ``count`` workers are there.

        Raises:
            WorkerError: they are not, after so many seconds.
        """
        end = time.monotonic() + seconds
        while self._engine.count < count:
            if time.monotonic() > end:
                raise WorkerError(
                    f"{self._engine.count} of {count} workers came within {seconds:.0f} s: look at the logs of the others"
                )
            time.sleep(0.1)

    def close(self) -> None:
        """Let go of what this opened itself, and of pools that took the place of broken ones."""
        self._engine.close()
        if self._close is not None:
            self._close()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # --- one round --------------------------------------------------------------------------------------------------------

    def _some(self, function: Callable[..., Any], pending: dict[int, _Pending]) -> dict[int, Any]:
        """Wait until something happens; the results that came, taken out of ``pending``."""
        owners = {future: waiting for waiting in pending.values() for future in waiting.attempts}
        pace = self._paces.setdefault(function, deque(maxlen=MEMORY_OF_DURATIONS))
        patience = min(self._time_left(waiting, pace) for waiting in pending.values())
        timeout = min(max(0.0, patience), SECONDS_BETWEEN_CHECKS)
        finished, _ = wait(owners, timeout=timeout, return_when=FIRST_COMPLETED)
        if not finished:
            self._check_silence(pending.values())
        results: dict[int, Any] = {}
        for future in finished:
            waiting = owners[future]
            since = waiting.attempts.pop(future)
            if waiting.number in results:
                continue
            if (loss := self._engine.loss(future)) is not None:
                self._lost(function, waiting, loss)
                continue
            results[waiting.number] = future.result()
            pace.append((time.monotonic() - since) / waiting.task.size)
            _cancel(pending.pop(waiting.number).attempts)
        self._help_the_late(function, pending.values(), pace)
        return results

    def _lost(self, function: Callable[..., Any], waiting: _Pending, loss: BaseException) -> None:
        # A block whose worker died is given to another one: machines are lost, and jobs end. It is not given away for ever: a
        # block that needs more memory than any worker has would kill them one after another. So the losses of each block are
        # counted, not those of each worker. A product depends on its column alone, so that it does not
        # matter whose result comes first.
        waiting.losses += 1
        if waiting.losses >= self.attempts:
            raise WorkerError(
                f"the same block lost its worker {waiting.losses} times ({type(loss).__name__}: {loss}): look at the workers' "
                "logs; most often they run out of memory: fewer workers a machine, a smaller microbatch, or memory=..."
            ) from loss
        if not waiting.attempts:
            self._start(function, waiting)

    def _start(self, function: Callable[..., Any], waiting: _Pending) -> _Pending:
        first = not waiting.attempts and not waiting.losses
        future = self._engine.submit(function, *waiting.task.arguments, place=waiting.task.place if first else None)
        waiting.attempts[future] = time.monotonic()
        return waiting

    def _check_silence(self, pending: Collection[_Pending]) -> None:
        """Say so, or give up, if nobody has ever answered.

        Raises:
            WorkerError: an executor begins no task, or its scheduler is gone.
        """
        self._engine.check()
        if any(self._paces.values()):
            return  # they have worked before: stragglers are another matter
        attempts = {future: since for waiting in pending for future, since in waiting.attempts.items()}
        silence = time.monotonic() - min(attempts.values())
        if silence > self.start_timeout and not any(self._engine.has_begun(future) for future in attempts):
            raise WorkerError(
                f"no worker of the {self._engine.name} has begun any of {len(attempts)} tasks within {silence:.0f} s: it may "
                "be busy with other work, closed, or without processes. An executor that starts later needs "
                "Workers(executor, start_timeout=...)"
            )
        if silence > self._reminder:
            self._reminder *= 2
            log.warning(
                "no worker has answered for %.0f s: they may still be importing, building the operator or computing their "
                "first product; look at them, or stop with Ctrl-C",
                silence,
            )

    # --- those who are late -----------------------------------------------------------------------------------------------

    def _help_the_late(self, function: Callable[..., Any], pending: Iterable[_Pending], pace: deque[float]) -> None:
        """One more copy of every task that takes far longer than others did.

        Raises:
            WorkerError: there are as many copies of one as there may be, and none of them answers.
        """
        for waiting in pending:
            if self._time_left(waiting, pace) > 0:
                continue
            if len(waiting.attempts) >= self.attempts:
                silence = time.monotonic() - min(waiting.attempts.values())
                raise WorkerError(
                    f"none of {len(waiting.attempts)} copies of the same block was answered within {silence:.0f} s: the "
                    "workers hang, or their network does. Nothing saved in a run is lost: look at their logs, then run the "
                    "same command again to resume"
                )
            self._start(function, waiting)

    def _time_left(self, waiting: _Pending, pace: deque[float]) -> float:
        """Seconds until a task deserves one more copy: twice as many for each copy that it has; infinite before any pace."""
        # Relative to the median of the last durations, as a product takes microseconds or minutes; the median, as one straggler
        # must not make the next ones look normal. Twice the patience for each copy: where all are slow because the machine is,
        # more copies would make it slower. Before the first answer nothing is known, and _check_silence() is in charge.
        copies = len(waiting.attempts)
        if not pace or not copies:
            return inf
        limit = max(self.grace, self.patience * statistics.median(pace) * waiting.task.size)
        return float(max(waiting.attempts.values()) + limit * 2 ** (copies - 1) - time.monotonic())


def as_workers(executor: Any) -> Workers:
    """``executor`` as :class:`Workers`, with their defaults unless it is some already.

    Raises:
        InvalidType: it has neither ``submit`` nor ``get_executor``.
    """
    return executor if isinstance(executor, Workers) else Workers(executor)


def _check_count(count: int) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InvalidArgument(f"{count!r} workers: choose at least 1")


def threads_each(count: int) -> int:
    """PyTorch threads for each of ``count`` workers on this machine.

    >>> threads_each(10**6)
    1
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // count)


def _cancel(futures: Iterable[Future[Any]]) -> None:
    for future in futures:
        future.cancel()
