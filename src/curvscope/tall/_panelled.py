"""Tall matrices that lie elsewhere than where they are multiplied: one panel is in use while the next one is on its way."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from concurrent.futures import Future

import torch
from torch import Tensor

from curvscope.tall import _transfer as transfer
from curvscope.tall._matrix import TallMatrix

PANEL = 1 << 25
"""Bytes of a row panel, at most; two are in memory at a time, the one in use and the next."""
HEIGHTS = (1 << 8, 1 << 16)
"""Fewest and most rows of a panel; a power of two, so that the panels of all matrices nest."""


class Panelled(TallMatrix):
    """A tall matrix that is read in panels of ``height`` rows, in order one ahead, in a thread of its own.

    Subclasses set ``shape``, ``dtype``, ``device`` and ``height``, call :meth:`_begin`, say how a panel is loaded, and call
    :meth:`_changed` for each panel that they write. Views share what was written, so that none of them reads stale panels.
    """

    height: int

    @abstractmethod
    def _load(self, number: int) -> Tensor:
        """Panel ``number`` as a tensor on the host, (rows, n), from :func:`.transfer.buffer`; called in another thread."""

    def _begin(self, written: dict[int, int] | None = None) -> None:
        """Nothing is read yet; ``written``: that of the matrix of which this is a view."""
        self._written: dict[int, int] = {} if written is None else written  # how often each panel was written
        self._panel: tuple[int, int, Tensor] | None = None  # number, its count above, content
        self._next: tuple[int, int, Future[transfer.Sent]] | None = None

    def panels(self, most_rows: int | None = None) -> Iterator[slice]:
        """Row ranges as in :meth:`TallMatrix.panels`: a panel each, or an even part of one."""
        step = self.height if most_rows is None else min(most_rows, self.height)
        for number in range(self._panel_count()):
            whole = self._rows_of(number)
            for start in range(whole.start, whole.stop, step):
                yield slice(start, min(start + step, whole.stop))

    def _range(self, start: int, stop: int) -> Tensor:
        parts = []
        while start < stop:
            number = start // self.height
            end, first = min(stop, (number + 1) * self.height), number * self.height
            parts.append(self._panel_at(number)[start - first : end - first])
            start = end
        if not parts:
            return torch.empty(0, self.shape[1], dtype=self.dtype, device=self.device)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _panel_at(self, number: int) -> Tensor:
        """The panel that was read last, or was read ahead, or is read now; and the next one is begun."""
        if self._panel is None or self._panel[:2] != self._version(number):
            ahead, self._next, self._panel = self._next, None, None
            if ahead is None or ahead[:2] != self._version(number):
                ahead = self._sent(number)
            if number + 1 < self._panel_count():
                self._next = self._sent(number + 1)
            self._panel = (*ahead[:2], transfer.arrived(ahead[2].result()))
        return self._panel[2]

    def _in_use(self, first: int, last: int) -> Tensor | None:
        """These rows as they were read, where they lie in the panel in use and that is not stale."""
        if self._panel is None or self._panel[:2] != self._version(self._panel[0]):
            return None
        here = self._rows_of(self._panel[0])
        return self._panel[2][first - here.start : last - here.start] if here.start <= first <= last <= here.stop else None

    def _still_right(self) -> None:
        """The panel in use was written together with the matrix."""
        if self._panel is not None:
            self._panel = (*self._version(self._panel[0]), self._panel[2])

    def _sent(self, number: int) -> tuple[int, int, Future[transfer.Sent]]:
        return (*self._version(number), transfer.begin(self._load, number, self.device))

    def _version(self, number: int) -> tuple[int, int]:
        return number, self._written.get(number, 0)

    def _changed(self, number: int) -> None:
        self._written[number] = self._written.get(number, 0) + 1

    def _panel_count(self) -> int:
        return -(-self.shape[0] // self.height)

    def _rows_of(self, number: int) -> slice:
        return slice(number * self.height, min((number + 1) * self.height, self.shape[0]))


def rows_of_panels(columns: int, itemsize: int) -> int:
    """Rows of a panel: as many as :data:`PANEL` holds of all columns, a power of two.

    >>> rows_of_panels(300, 4), rows_of_panels(1, 4)
    (16384, 65536)
    """
    least, most = HEIGHTS
    fitting = max(1, PANEL // (max(1, columns) * itemsize))
    return max(least, min(most, 1 << (fitting.bit_length() - 1)))
