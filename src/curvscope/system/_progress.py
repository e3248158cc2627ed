"""Long work: announced to those who can prepare for it; a bar with the time left, a callback for programs, or silence."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress as RichProgress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Callback = Callable[[str, int, int, str], None]
Progress = bool | Callback | None
"""``None``: a bar if standard error is a terminal; True or False: a bar or none; or ``callback(stage, done, total, note)``."""

Advance = Callable[..., None]


class _Announced(threading.local):
    def __init__(self) -> None:
        self.products: list[int] = []


_announced = _Announced()


@contextmanager
def long_work(products: int | None = None) -> Iterator[None]:
    """Inside, much work is to come in this thread: whatever prepares for it pays, and is done at once.

    Args:
        products: vectors that an operator is expected to be multiplied with, which is for preparations that pay late; None: as
            many as was announced around it, 0 if nothing was.

    >>> with long_work(500), long_work():
    ...     is_long_work(), products_to_come()
    (True, 500)
    """
    _announced.products.append(products_to_come() if products is None else products)
    try:
        yield
    finally:
        _announced.products.pop()


def is_long_work() -> bool:
    """Return whether this thread is inside :func:`long_work`, or a :func:`stage`."""
    return bool(_announced.products)


def products_to_come() -> int:
    """Return how many products this thread's innermost :func:`long_work` announced; 0: not said."""
    return _announced.products[-1] if _announced.products else 0


@contextmanager
def stage(name: str, total: int, progress: Progress = None) -> Iterator[Advance]:
    """Show one stage of long work while the block runs.

    Yields ``advance(steps=1, note="")``; the note (a residual, a loss) is shown behind the bar.

    >>> seen = []
    >>> with stage("products", 2, lambda *event: seen.append(event)) as advance:
    ...     advance(2, note="done")
    >>> seen
    [('products', 0, 2, ''), ('products', 2, 2, 'done')]
    """
    with long_work(), _shown(name, total, progress) as advance:
        yield advance


@contextmanager
def _shown(name: str, total: int, progress: Progress) -> Iterator[Advance]:
    if callable(progress):
        yield _reporter(name, total, progress)
    elif sys.stderr is not None and (progress or (progress is None and _is_terminal(sys.stderr))):
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with RichProgress(*columns, console=Console(file=cast(TextIO, _Screen()))) as bars:
            task = bars.add_task(name, total=total, note="")
            yield lambda steps=1, note="": bars.update(task, advance=steps, note=note)
    else:
        yield lambda steps=1, note="": None


class _Screen:
    """Standard error for as long as it can be written to; afterwards everything is dropped.

    A terminal may be closed while ``nohup`` keeps the process, and whoever reads a pipe may end. Work goes on without the bar.
    """

    def __init__(self) -> None:
        self._stream = getattr(sys.stderr, "rich_proxied_file", sys.stderr)  # not the bar around this one
        self._gone = False

    def write(self, text: str) -> int:
        """Write, if that is possible."""
        self._tried(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        self._tried(self._stream.flush)

    def _tried(self, function: Callable[..., Any], *arguments: str) -> None:
        if not self._gone:
            try:
                function(*arguments)
            except (OSError, ValueError):  # EIO of a terminal, EPIPE of a pipe; ValueError: the stream was closed
                self._gone = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def _reporter(name: str, total: int, callback: Callback) -> Advance:
    done = 0

    def advance(steps: int = 1, note: str = "") -> None:
        """Tell the callback of so many more steps."""
        nonlocal done
        done += steps
        callback(name, done, total, note)

    callback(name, 0, total, "")
    return advance
