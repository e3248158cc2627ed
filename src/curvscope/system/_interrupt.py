"""Ctrl-C between two blocks of work instead of in the middle of one."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from curvscope.errors import Interrupted


class Interruptible:
    """While the block runs, the first Ctrl-C is remembered until :meth:`check`; a second one stops at once.

    Outside the main thread, where Python delivers no signals, nothing changes. Nor does it where SIGINT is ignored already, as
    in jobs that a shell started in the background: they were told to go on.

    Args:
        advice: how to resume, for the person who stopped it.

    >>> with Interruptible("start it again") as work:
    ...     work.check()
    """

    def __init__(self, advice: str) -> None:
        self.advice = advice
        self.asked = False
        self._before: Any = None  # what signal.signal() gave

    def __enter__(self) -> Interruptible:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None):  # None: set by no Python code
            self._before = signal.signal(signal.SIGINT, self._remember)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def check(self) -> None:
        """Stop here if Ctrl-C was pressed: call it where everything done so far is saved.

        Raises:
            Interrupted: it was.
        """
        if self.asked:
            raise Interrupted(f"stopped; everything measured so far is saved. {self.advice}")

    def _remember(self, number: int, frame: FrameType | None) -> None:
        # Python would raise KeyboardInterrupt between any two instructions: between the append to a basis and the count of its
        # columns, say, or inside a library that holds a lock. Nothing could then be said of what is saved. The flag is read
        # where it is known; the second Ctrl-C is for work that does not get there, and stops as Python does.
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
