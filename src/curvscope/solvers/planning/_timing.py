"""Products of an operator, timed and watched before a plan."""

from __future__ import annotations

import pickle
import time

import torch

from curvscope.operators.base import Operator
from curvscope.system import extra_memory, long_work, resident_bytes


class Timing:
    """Products of an operator, timed and watched; each width once."""

    def __init__(self, operator: Operator) -> None:
        self.operator, self.last = operator.view(), 0.0
        self.known: dict[int, tuple[float, int]] = {}
        self.before = resident_bytes()
        _, self.traced = extra_memory(lambda: self._multiply(1))
        self.at(1)

    def at(self, width: int) -> tuple[float, int]:
        """Seconds a vector and extra bytes of a block; wide blocks of slow operators are told from narrower ones."""
        slow = self.known.get(1, (0.0, 0))[0]
        width = max(1, min(width, self.operator.shape[0], int(4 / slow) if slow > 0.125 else width))
        if width not in self.known:
            self._multiply(width)  # a block of another width may be computed another way
            start = time.perf_counter()
            _, extra = extra_memory(lambda: self._multiply(width))
            self.known[width] = (time.perf_counter() - start) / width, extra
        self.last = self.known[width][0]
        return self.known[width]

    def wire_seconds(self) -> float:
        """Of one column on its way to a worker and back, on this side: packed and unpacked, both ways."""
        column = torch.zeros(self.operator.shape[0], dtype=self.operator.dtype, device="cpu").numpy()
        start = time.perf_counter()
        pickle.loads(pickle.dumps(column, protocol=pickle.HIGHEST_PROTOCOL))
        return 2 * (time.perf_counter() - start)

    def _multiply(self, width: int) -> None:
        generator = torch.Generator().manual_seed(width)
        rows = self.operator.shape[0]
        block = torch.randn(width, rows, generator=generator, dtype=self.operator.dtype, device="cpu").T.to(
            self.operator.device
        )
        with long_work():
            self.operator @ block
