"""Pool of processes on this machine, each connected to its owner by a pipe of its own.

No port is opened, no file is written and there are no credentials: an anonymous pipe has no name, so no other process can
connect to it. What travels is unpickled at both ends, which is why nobody else may have a way in.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from curvscope.errors import WorkerError
from curvscope.system import visible

SECONDS_BETWEEN_CHECKS = 1.0
"""How often the owner checks that a silent process is alive; a pipe that a grandchild inherited does not report its end."""
SECONDS_TO_END = 5.0
"""For how long a process may take to end after SIGTERM before it is killed."""

Message = tuple[bytes, list[memoryview]]
"""A pickle, and the buffers of its arrays."""


class ProcessDied(BrokenExecutor):
    """A process ended before it returned the result of its task; other tasks of the pool are not affected."""


@dataclass(frozen=True)
class Call:
    """A submitted function call and the future that receives its result."""

    future: Future[Any]
    message: Message


class LocalPool(Executor):
    """Executor whose tasks run in ``count`` spawned processes on this machine.

    A process that dies loses its own task alone and is replaced at the next one. The processes end with their owner, also when
    that is killed: they exit as soon as the operating system closes its end of the pipe. Ctrl-C is left to the owner.

    Args:
        count: processes.
        gpus: GPUs that this process sees; each process sees one of them, in turn.

    >>> with LocalPool(1) as pool:
    ...     pool.submit(pow, 2, 10).result()
    1024
    """

    def __init__(self, count: int, *, gpus: int = 0) -> None:
        self.count = count
        self._owner = os.getpid()
        self._gpus, self._seen = gpus, os.environ.get("CUDA_VISIBLE_DEVICES")
        self._changed = threading.Condition()
        self._shared: deque[Call] = deque()
        self._reserved: list[deque[Call]] = [deque() for _ in range(count)]
        self._closing = False
        # Started in the caller's thread: in a script without a main guard this raises in the child, which then ends.
        self._processes = [_Process.start(number, gpus, self._seen) for number in range(count)]
        self._threads = [threading.Thread(target=self._serve, args=(number,), daemon=True) for number in range(count)]
        for thread in self._threads:
            thread.start()
        # Runs before multiprocessing waits for its children, which wait for us.
        atexit.register(self.terminate)

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        """Call ``function(*arguments, **keywords)`` in any of the processes."""
        return self._put(self._shared, function, arguments, keywords)

    def submit_to(self, number: int, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Call ``function(*arguments)`` in process ``number`` modulo the size of the pool."""
        return self._put(self._reserved[number % self.count], function, arguments, {})

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes once they have done what was submitted, or what they do now if ``cancel_futures``."""
        with self._changed:
            self._closing = True
            waiting = self._take_all() if cancel_futures else []
            self._changed.notify_all()
        for call in waiting:
            call.future.cancel()
        if wait:
            for thread in self._threads:
                thread.join()
            atexit.unregister(self.terminate)

    def terminate(self) -> None:
        """End the processes at once, whatever they do; tasks without a result are cancelled or end with ProcessDied."""
        if os.getpid() != self._owner:  # a forked child, which has neither the threads nor the say
            return
        self.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.terminate()
        self.shutdown(wait=True)

    @property
    def pids(self) -> list[int]:
        """Process numbers of those who are there now."""
        return [process.pid for process in self._processes if process.is_alive]

    # --- the owner's side -------------------------------------------------------------------------------------------------

    def _put(self, queue: deque[Call], function: Callable[..., Any], arguments: tuple[Any, ...], keywords: Any) -> Future[Any]:
        call = Call(Future(), packed((function, arguments, keywords)))
        with self._changed:
            if self._closing:
                raise RuntimeError("the pool is closed: make a new one")
            queue.append(call)
            self._changed.notify_all()
        return call.future

    def _take(self, number: int) -> Call | None:
        """Return the next call for a process; None when the pool is closed and nothing is left for it."""
        own = self._reserved[number]
        with self._changed:
            self._changed.wait_for(lambda: own or self._shared or self._closing)
            return own.popleft() if own else self._shared.popleft() if self._shared else None

    def _take_all(self) -> list[Call]:
        calls = [call for queue in (self._shared, *self._reserved) for call in queue]
        for queue in (self._shared, *self._reserved):
            queue.clear()
        return calls

    def _serve(self, number: int) -> None:
        """Hand tasks to one process and pass on its answers, until the pool is closed; run by one thread for each process."""
        while (call := self._take(number)) is not None:
            try:
                if not self._processes[number].is_alive and not self._closing:
                    self._processes[number].close()
                    self._processes[number] = _Process.start(number, self._gpus, self._seen)
                    if self._closing:  # terminate() may have passed by before there was this process
                        self._processes[number].terminate()
                process = self._processes[number]
                process.await_ready()
                if not call.future.set_running_or_notify_cancel():
                    continue
                failed, result = process.ask(call.message)
            except (EOFError, OSError) as error:
                _end(call.future, ProcessDied(self._processes[number].ending()), error)
            except BaseException as error:  # noqa: BLE001 -- whoever waits for the future must hear of it
                unreadable = f"the answer of a process cannot be read: {type(error).__name__}: {error}"
                _end(call.future, WorkerError(unreadable), error)
            else:
                if failed:
                    call.future.set_exception(result)
                else:
                    call.future.set_result(result)
        self._processes[number].close()


class _Process:
    """A child process and the owner's end of its pipe."""

    def __init__(self, process: Any, pipe: Connection) -> None:
        self.process, self.pipe, self.ready = process, pipe, False
        self.pid: int = process.pid

    @classmethod
    def start(cls, number: int, gpus: int, seen: str | None) -> _Process:
        """Spawn process ``number``; it imports while we go on."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, visible(number, gpus, seen)), name=f"curvscope-{number}")
        with _interrupts_blocked():  # a child inherits this, so that Ctrl-C does not reach it while it imports
            process.start()
        theirs.close()  # so that our end reports when the child's is gone
        return cls(process, ours)

    @property
    def is_alive(self) -> bool:
        """True while the process runs."""
        return bool(self.process.is_alive())

    def await_ready(self) -> None:
        """Wait until the process has imported everything and takes tasks."""
        if not self.ready:
            self._receive()
            self.ready = True

    def ask(self, message: Message) -> tuple[bool, Any]:
        """Return whether the call failed, and its result or exception."""
        send(self.pipe, message)
        failed, found = self._receive()
        return bool(failed), found

    def _receive(self) -> Any:
        while not self.pipe.poll(SECONDS_BETWEEN_CHECKS):
            if not self.is_alive and not self.pipe.poll():
                raise EOFError
        return unpacked(read(self.pipe))

    def ending(self) -> str:
        """Return how the process ended, in words."""
        self.process.join(SECONDS_TO_END)
        code = self.process.exitcode
        if code is None:
            self.terminate()
            return f"process {self.pid} closed its connection"
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"process {self.pid} was ended by {signal.Signals(-code).name}"
        when = "" if self.ready else " while it started: scripts that open workers need `if __name__ == '__main__':`"
        return f"process {self.pid} ended with exit status {code}{when}"

    def terminate(self) -> None:
        """End the process now."""
        with contextlib.suppress(OSError, ValueError, AttributeError):  # it may have ended, or been closed, a moment ago
            self.process.terminate()
            self.process.join(SECONDS_TO_END)
            self.process.kill()

    def close(self) -> None:
        """Let the process end: it sees that the pipe is closed."""
        self.pipe.close()
        self.process.join(SECONDS_TO_END)
        self.terminate()


# --- the process' side ----------------------------------------------------------------------------------------------------


def serve(pipe: Connection, gpu: str | None) -> None:
    """Answer calls from a pipe until it is closed; the main function of every process of a pool."""
    if gpu is not None:  # before CUDA is initialised, which happens with the first tensor there
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner decides what Ctrl-C means
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_owner, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):  # the owner is gone, or has closed the pool
        send(pipe, packed("ready"))
        while True:
            send(pipe, _answer(read(pipe)))


def _answer(call: Message) -> Message:
    try:
        function, arguments, keywords = unpacked(call)
        return packed((False, function(*arguments, **keywords)))
    except BaseException as error:  # noqa: BLE001 -- also SystemExit: it must not end the owner, nor look like a death
        return packed((True, _transportable(error)))


def _transportable(error: BaseException) -> BaseException:
    """Return the error itself if it survives pickling, with its traceback as a note; else a WorkerError that quotes it."""
    where = traceback.format_exc()
    if isinstance(error, Exception):
        error.add_note(f"in process {os.getpid()}:\n{where}")
        with contextlib.suppress(Exception):
            pickle.loads(pickle.dumps(error))
            return error
    return WorkerError(f"process {os.getpid()}: the task raised {type(error).__name__}: {error}\n{where}")


def with_owner(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the function in a process of somebody else's pool, which from then on ends with its owner, however that ends.

    A process pool of the standard library leaves its processes behind, waiting for ever, when its owner is killed.
    """
    global _has_owner
    if not _has_owner:
        _has_owner = True
        threading.Thread(target=_end_with_owner, daemon=True).start()
    return function(*arguments)


_has_owner = False


def _end_with_owner() -> None:
    """Exit when the owner has died, in the middle of a product if need be."""
    owner = multiprocessing.parent_process()
    if owner is not None:
        wait([owner.sentinel])
        os._exit(1)


# --- messages -------------------------------------------------------------------------------------------------------------


def packed(content: Any) -> Message:
    """Pickle ``content``, its arrays apart: they are sent as they lie in memory, without a copy."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(content, protocol=5, buffer_callback=buffers.append)
    return head, [buffer.raw() for buffer in buffers]


def send(pipe: Connection, message: Message) -> None:
    """Write a message of :func:`packed`."""
    head, buffers = message
    pipe.send((head, [buffer.nbytes for buffer in buffers]))
    for buffer in buffers:
        if buffer.nbytes:
            pipe.send_bytes(buffer)


def read(pipe: Connection) -> Message:
    """Read what :func:`send` wrote.

    Raises:
        EOFError: the other end is closed.
    """
    head, sizes = pipe.recv()
    buffers = [bytearray(size) for size in sizes]
    for buffer in buffers:
        if buffer:
            pipe.recv_bytes_into(buffer)
    return head, [memoryview(buffer) for buffer in buffers]


def unpacked(message: Message) -> Any:
    """Return what :func:`packed` was given; arrays share the memory of the message."""
    head, buffers = message
    return pickle.loads(head, buffers=buffers)


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(future: Future[Any], error: BaseException, cause: BaseException) -> None:
    """Fail a future, unless it was cancelled before its task began."""
    error.__cause__ = cause
    if future.running() or future.set_running_or_notify_cancel():
        future.set_exception(error)
