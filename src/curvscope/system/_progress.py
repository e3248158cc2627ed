"""Long work: announced to those who can prepare for it; a bar with the time left, a callback for programs, or silence."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from curvscope.system._displays import Advance, display

Callback = Callable[[str, int, int, str], None]
Progress = bool | Callback | None
"""What is shown of long work.

- ``None``: a bar in a terminal or a notebook; elsewhere a line of the log now and then, at level INFO.
- ``True``: the same, but the lines are written to standard error.
- ``False``: nothing.
- ``callback(stage, done, total, note)``: it is called instead.
"""


class _Announced(threading.local):
    def __init__(self) -> None:
        self.products: list[int] = []


_announced = _Announced()


class long_work:
    """Inside, much work is to come in this thread: whatever prepares for it pays, and is done at once.

    Args:
        products: vectors that an operator is expected to be multiplied with, which is for preparations that pay late; None: as
            many as was announced around it, 0 if nothing was.

    >>> with long_work(500), long_work():
    ...     is_long_work(), products_to_come()
    (True, 500)
    """

    __slots__ = ("_products",)  # entered for each product: a generator would take three times as long

    def __init__(self, products: int | None = None) -> None:
        self._products = products

    def __enter__(self) -> None:
        _announced.products.append(products_to_come() if self._products is None else self._products)

    def __exit__(self, *raised: object) -> None:
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
    elif progress is False or (progress is None and sys.stderr is None):
        yield lambda steps=1, note="": None
    else:
        with display(name, total, written=progress is True) as advance:
            yield advance


def _reporter(name: str, total: int, callback: Callback) -> Advance:
    done = 0

    def advance(steps: int = 1, note: str = "") -> None:
        """Tell the callback of so many more steps."""
        nonlocal done
        done += steps
        callback(name, done, total, note)

    callback(name, 0, total, "")
    return advance
