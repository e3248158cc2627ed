"""Linearisations that are kept between products, as many as fit their share of the memory budget."""

from __future__ import annotations

from curvscope.operators.products._strategy import Linearized


class Kept:
    """Linearisations of mini-batches that are used again for the next block."""

    def __init__(self) -> None:
        self.items: dict[int, tuple[Linearized, float]] = {}
        self.bytes, self.complete, self._open = 0, False, True
        self._signature: object = None

    def use(self, signature: object) -> None:
        """Forget everything that was made another way."""
        if signature != self._signature:
            self.forget()
            self._signature = signature

    def close(self) -> None:
        """Forget everything and keep nothing any more."""
        self.forget()
        self._open = False

    def offer(self, number: int, linear: Linearized, weight: float, limit: int) -> None:
        """Keep it if its size is known and all that is kept stays within ``limit`` bytes."""
        if number in self.items:
            return
        if self._open and linear.held_bytes and self.bytes + linear.held_bytes <= limit:
            self.items[number] = (linear, weight)
            self.bytes += linear.held_bytes

    def forget(self) -> None:
        """Keep nothing of what there is."""
        self.items, self.bytes, self.complete = {}, 0, False
