"""Progress of long work: a bar with the time left on a terminal, a callback for programs, silence elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

Callback = Callable[[str, int, int, str], None]
Progress = bool | Callback | None
"""``None``: a bar if standard error is a terminal; True or False: a bar or none; or ``callback(stage, done, total, note)``."""

Advance = Callable[..., None]


@contextmanager
def stage(name: str, total: int, progress: Progress = None) -> Iterator[Advance]:
    """Show one stage of work while the block runs.

    Yields ``advance(steps=1, note="")``; the note (a residual, a loss) is shown behind the bar.

    >>> seen = []
    >>> with stage("products", 2, lambda *event: seen.append(event)) as advance:
    ...     advance(2, note="done")
    >>> seen
    [('products', 0, 2, ''), ('products', 2, 2, 'done')]
    """
    if callable(progress):
        yield _reporter(name, total, progress)
    elif progress or (progress is None and sys.stderr.isatty()):
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with RichProgress(*columns, console=Console(stderr=True)) as bars:
            task = bars.add_task(name, total=total, note="")
            yield lambda steps=1, note="": bars.update(task, advance=steps, note=note)
    else:
        yield lambda steps=1, note="": None


def _reporter(name: str, total: int, callback: Callback) -> Advance:
    done = 0

    def advance(steps: int = 1, note: str = "") -> None:
        nonlocal done
        done += steps
        callback(name, done, total, note)

    callback(name, 0, total, "")
    return advance
