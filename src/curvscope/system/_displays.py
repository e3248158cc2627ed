"""How long work is shown: a bar in terminals and notebooks, and where there is no screen a line now and then."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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

log = logging.getLogger("curvscope.progress")

Advance = Callable[..., None]

LINE_SECONDS = 30.0
"""Between two lines where there is no bar: a job of a day writes 3,000 lines at most, and one of seconds none."""

_now = time.monotonic


def display(name: str, total: int, *, written: bool = False) -> AbstractContextManager[Advance]:
    """Show a stage in the way that suits where this process runs.

    Args:
        name: of the stage.
        total: its steps.
        written: lines go to standard error, not to the log.
    """
    if _is_terminal(sys.stderr):
        return _terminal(name, total)
    return _notebook(name, total) if _in_notebook() else _lines(name, total, written=written)


@contextmanager
def _terminal(name: str, total: int) -> Iterator[Advance]:
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


@contextmanager
def _notebook(name: str, total: int) -> Iterator[Advance]:
    """By tqdm: rich shows nothing in a notebook without ipywidgets, tqdm a line of text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that ipywidgets are missing
        from tqdm.auto import tqdm
    # a stage without steps: its name and its time, not "0it [00:00, ?it/s]"
    form = {} if total else {"bar_format": "{desc}: {elapsed}"}
    with tqdm(total=total or None, desc=name, **form) as bar:

        def advance(steps: int = 1, note: str = "") -> None:
            """Move the bar."""
            bar.set_postfix_str(note, refresh=False)
            bar.update(steps)

        yield advance


@contextmanager
def _lines(name: str, total: int, *, written: bool) -> Iterator[Advance]:
    """A line each 30 seconds, for batch jobs; and one at the end of what had one."""
    screen = _Screen() if sys.stderr is not None else None
    begun = last = _now()
    done, said, noted = 0, False, ""

    def say() -> None:
        """Write a line."""
        nonlocal last, said
        last, said = _now(), True
        line = _line(name, done, total, last - begun) + (f"; {noted}" if noted else "")
        if written and screen is not None:
            screen.write(line + "\n")
        elif not written:
            log.info(line)

    def advance(steps: int = 1, note: str = "") -> None:
        """Count, and say so where that is long ago."""
        nonlocal done, noted
        done, noted = done + steps, note
        if _now() - last >= LINE_SECONDS:
            say()

    yield advance
    if written or said:
        say()


def _line(name: str, done: int, total: int, seconds: float) -> str:
    """Return the text of a line.

    >>> _line("products", 120, 1000, 90)
    'products: 120 of 1000 (12 %) in 1 min 30 s, about 11 min left'
    """
    told = f"{name}: {done}" + (f" of {total} ({100 * done // total} %)" if total > 0 else "") + f" in {_duration(seconds)}"
    left = seconds * (total - done) / done if 0 < done < total else 0.0
    return told + (f", about {_duration(left)} left" if left else "")


def _duration(seconds: float) -> str:
    """Two units at most.

    >>> [_duration(seconds) for seconds in (0.4, 59, 75, 660, 5000, 200000)]
    ['0 s', '59 s', '1 min 15 s', '11 min', '1 h 23 min', '2 d 7 h']
    """
    rounded = round(seconds)
    for unit, smaller, size, part in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if rounded >= size:
            rest = rounded % size // part
            return f"{rounded // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{rounded} s"


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


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def _in_notebook() -> bool:
    """Return whether cells of a Jupyter notebook run here: that was not imported which was not."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return type(shell).__name__ == "ZMQInteractiveShell"
