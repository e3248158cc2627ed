"""How much each worker gets."""

from __future__ import annotations

from collections.abc import Iterator


def evenly(count: int, parts: int) -> Iterator[tuple[int, int]]:
    """``count`` columns in at most ``parts`` ranges whose lengths differ by 1 at most.

    >>> list(evenly(5, 2)), list(evenly(2, 4))
    ([(0, 3), (3, 5)], [(0, 1), (1, 2)])
    """
    parts = min(count, parts)
    for part in range(parts):
        yield -(-count * part // parts), -(-count * (part + 1) // parts)
