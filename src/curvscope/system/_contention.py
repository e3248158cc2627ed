"""Threads that wait for cores which other processes keep busy."""

from __future__ import annotations

import logging
import os
import time
from typing import ClassVar

import psutil
import torch

log = logging.getLogger("curvscope")

WINDOW = 1.0
"""Seconds over which the processors are looked at; the kernel counts in hundredths."""
LEAST = 0.5
"""Cores that others must keep busy. Two threads beside one busy process on two cores leave it 0.6 to 1 of a core."""


class Contention:
    """Monitor of the cores that other processes keep busy, which takes threads away that have none.

    A parallel operation ends when its slowest thread does. Where another process holds one of the cores, the other threads
    wait for it, spinning, and an operation of a tenth of a millisecond takes as long as the scheduler's turn. So others'
    processor time is compared with the wall time, and threads are taken away where there are no cores for them. Nothing is
    waited for, and nothing is done where ``OMP_NUM_THREADS`` says how many threads are wanted.
    """

    _told: ClassVar[bool] = False
    """Whether a warning was given in this process."""

    def __init__(self) -> None:
        self.active = "OMP_NUM_THREADS" not in os.environ
        self._then = _clocks() if self.active else (0.0, 0.0, 0.0)

    def look(self) -> int | None:
        """Give PyTorch fewer threads if it has too many, and say so; None: it stays as it is, else how many it has now."""
        if not self.active or torch.get_num_threads() == 1:
            return None
        now = _clocks()
        wall, busy, own = (later - earlier for later, earlier in zip(now, self._then, strict=True))
        if wall < WINDOW:
            return None
        self._then = now
        count, cores, others = torch.get_num_threads(), os.cpu_count() or 1, (busy - own) / wall
        left = max(1, cores - round(others))
        if others < LEAST or left >= count:
            return None
        torch.set_num_threads(left)
        log.log(
            logging.INFO if Contention._told else logging.WARNING,  # each solve looks: once is enough for a person
            "other processes keep %.1f of %d cores busy: going on with %d of %d threads, which wait less; set OMP_NUM_THREADS "
            "to decide yourself",
            others,
            cores,
            left,
            count,
        )
        Contention._told = True
        return left


def _clocks() -> tuple[float, float, float]:
    """Seconds of wall time, of all cores at work, and of this process."""
    times = psutil.cpu_times()
    busy = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))
    return time.perf_counter(), busy, time.process_time()
