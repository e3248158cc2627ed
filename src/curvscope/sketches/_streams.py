"""Counter streams: random numbers that are a function of a name and a place, drawn by as many threads as there are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

TILE_ROWS = 1 << 16
"""Rows that one counter stream serves; part of the definition of the numbers."""

FEW_NUMBERS = 1 << 18
"""Numbers below which threads are not worth starting."""


@dataclass(frozen=True)
class Streams:
    """The random streams of one test matrix: a Philox counter generator (Salmon et al. 2011) for each name and tile.

    The key is a 128-bit hash of kind, seed, role and name, so that roles, neighbouring seeds and columns share nothing.
    """

    kind: str
    seed: int
    role: str

    def at(self, name: object, tile: int = 0) -> np.random.Generator:
        """The generator for one tile of one named part (a column's index, for most kinds)."""
        text = f"curvscope {self.kind} {self.seed} {self.role} {name}".encode()
        key = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, tile]))


def in_parallel(task: Callable[[int], None], count: int, numbers: int) -> None:
    """task(0), ..., task(count - 1), on PyTorch's number of threads when there are many numbers to draw.

    NumPy draws without holding the interpreter's lock; every task fills a place of its own, so the order does not matter.
    """
    workers = min(count, torch.get_num_threads())
    if workers < 2 or numbers < FEW_NUMBERS:
        for i in range(count):
            task(i)
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(task, range(count)))
