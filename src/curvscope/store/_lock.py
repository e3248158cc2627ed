"""One process at a time writes to a run; whoever looks at it takes no lock."""

from __future__ import annotations

import json
import os
import platform
import stat
import time
import weakref
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from curvscope.errors import DamagedData, RunConflict
from curvscope.store._untrusted import read_plain

try:
    import fcntl

    flock: Callable[[int, int], None] | None = fcntl.flock
except ImportError:  # Windows
    flock = None

LOCK = "lock"
LONGEST_NOTE = 1 << 16
"""Bytes of the note in the lock file, at most."""

_held: weakref.WeakSet[Lock] = weakref.WeakSet()


class Lock:
    """Held from :meth:`take` until :meth:`release`, or until the process dies, however it dies: a lock is never stale.

    The file ``lock`` is locked by the operating system and says who holds it; it stays when nobody does. Children that are
    forked meanwhile do not hold it. The file is never opened through a link, nor emptied before it is known to be ours.

    >>> import tempfile
    >>> lock = Lock(Path(tempfile.mkdtemp()))
    >>> lock.take()
    >>> holder(lock.path.parent)["pid"] == os.getpid()
    True
    >>> lock.release()
    >>> holder(lock.path.parent) is None
    True
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._descriptor: int | None = None

    def take(self) -> None:
        """Take it at once.

        Raises:
            RunConflict: another process, or another part of this one, has it; or the folder may not be written to.
            DamagedData: the file is a link, or not a file.
        """
        # A lock of the operating system, not a file that is there or not: it ends with the process, also with kill -9, so that
        # nobody has to judge whether a lock is stale. It belongs to the open file, not to its name: if the folder was removed
        # and made again between opening and locking, we hold a file that no other process will ever see, and try again.
        while True:
            descriptor = _opened(self.path)
            try:
                _claim(descriptor)
            except OSError as error:
                os.close(descriptor)
                raise RunConflict(
                    f"{self.path.parent} is in use{_by(self.path.parent)}: wait for it, end it with Ctrl-C, or choose another "
                    "directory"
                ) from error
            if _is_still_there(self.path, descriptor):
                break
            os.close(descriptor)  # another folder took the place of this one between the two calls
        self._descriptor = descriptor
        _held.add(self)
        me = psutil.Process()
        note = {
            "pid": me.pid,
            "host": platform.node(),
            "since": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "started": me.create_time(),
        }
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(note).encode())

    def release(self) -> None:
        """Let it go; nothing happens if it is not held."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            self.forget()

    def state(self) -> str:
        """Return "held", or what happened to the file while it was held: "removed", or "replaced" by another session's."""
        if self._descriptor is None or _is_still_there(self.path, self._descriptor):
            return "held"
        return "replaced" if self.path.exists() else "removed"

    def forget(self) -> None:
        """Close the file without a word, as in a forked child: the lock stays with the process that took it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def holder(folder: Path) -> dict[str, Any] | None:
    """Return what the lock file says about the process that works in a folder; None if none does.

    Nothing is locked and nothing written: a process that begins at this moment is not disturbed. A process of this host is
    looked for; of another host's one knows only that it did not release its lock.
    """
    try:
        note = json.loads(read_plain(folder / LOCK, LONGEST_NOTE))
        found = {name: note[name] for name in ("pid", "host", "since")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # none, empty, or not ours
        return None
    if found["host"] != platform.node():
        return found
    try:
        process = psutil.Process(found["pid"])
        is_it = abs(process.create_time() - float(note.get("started", process.create_time()))) < 1
        return found if is_it and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.Error, TypeError, ValueError, OverflowError):
        return None


def _opened(path: Path) -> int:
    """The lock file, made where there is none; a regular file that nothing else names, never the target of a link."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if path.is_symlink():
            raise DamagedData(f"{path} is a link: remove it, or do not use this run. Nothing was written") from error
        raise RunConflict(
            f"{path.parent} may not be written to ({error.strerror}): choose another directory, or change its permissions"
        ) from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise DamagedData(f"{path} is no file of its own: remove it, or do not use this run. Nothing was written")
    return descriptor


def _is_still_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _claim(descriptor: int) -> None:
    if flock is not None:
        flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        msvcrt: Any = import_module("msvcrt")
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)


def _by(folder: Path) -> str:
    known = holder(folder)
    return "" if known is None else f" by process {known['pid']} on {known['host']} since {known['since']}"


def _forget_in_child() -> None:
    """A forked child (a data loader's worker) has the same open file, and would hold the lock after its parent died."""
    for lock in list(_held):
        lock.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
