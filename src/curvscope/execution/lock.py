"""One process at a time in a run."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import IO

from curvscope.errors import RunConflict

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = "lock"


class Lock:
    """Held from :meth:`take` until :meth:`release`, or until the process dies, however it dies: a lock is never stale.

    The file ``lock`` is locked by the operating system and says who holds it; it stays when nobody does.

    >>> import tempfile
    >>> lock = Lock(Path(tempfile.mkdtemp()))
    >>> lock.take()
    >>> lock.release()
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._file: IO[str] | None = None

    def take(self) -> None:
        """Take it at once.

        Raises:
            RunConflict: another process, or another part of this one, has it.
        """
        stream = self.path.open("a+", encoding="utf-8")
        try:
            _claim(stream)
        except OSError as error:
            holder = _holder(self.path)
            stream.close()
            raise RunConflict(
                f"{self.path.parent} is in use{holder}: wait for it, end it with Ctrl-C, or choose another directory"
            ) from error
        self._file = stream
        stream.truncate(0)
        stream.write(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%dT%H:%M:%S%z")}))
        stream.flush()

    def release(self) -> None:
        """Let it go; nothing happens if it is not held."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None


def _claim(stream: IO[str]) -> None:
    if fcntl is not None:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        stream.seek(0)
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)


def _holder(path: Path) -> str:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return f" by process {known['pid']} on {known['host']} since {known['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
