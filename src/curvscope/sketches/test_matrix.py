"""Random test matrices that are never stored: any column, any panel of rows, the same bits every time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument

TILE_ROWS = 1 << 16
"""Rows that one counter stream serves; part of the definition of the numbers."""


def _gaussian(stream: np.random.Generator, rows: int) -> np.ndarray:
    return stream.standard_normal(rows)


def _rademacher(stream: np.random.Generator, rows: int) -> np.ndarray:
    return stream.integers(0, 2, rows, dtype=np.int8) * 2.0 - 1.0


KINDS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {"gaussian": _gaussian, "rademacher": _rademacher}


class TestMatrix:
    """A D x n random matrix with independent columns of independent entries (mean 0, variance 1).

    An entry is a pure function of (kind, seed, role, row, column): the same for any block size, tile, worker, device and n.
    Each column and tile of 65,536 rows has a counter stream of its own (Philox, Salmon et al. 2011), keyed by a 128-bit hash,
    so that roles and neighbouring seeds share nothing. Numbers are drawn in float64 and rounded to ``dtype``.

    Args:
        kind: ``"gaussian"`` or ``"rademacher"``.
        rows: D.
        seed: any integer.
        role: what it is for ("right", "left", ...); another role gives an independent matrix.

    Cost: about 10 ns an entry to make; memory: the columns asked for.

    >>> omega = TestMatrix("gaussian", 5, seed=0, role="right")
    >>> torch.equal(omega.columns(0, 3)[:, 1:], omega.columns(1, 3))
    True
    >>> torch.equal(omega.panel(slice(2, 4), 0, 3), omega.columns(0, 3)[2:4])
    True
    """

    __test__ = False  # not a test case, whatever pytest thinks of the name

    def __init__(
        self,
        kind: str,
        rows: int,
        *,
        seed: int,
        role: str,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if kind not in KINDS:
            raise InvalidArgument(f"sketch={kind!r}: choose one of {', '.join(sorted(KINDS))}")
        if rows < 1:
            raise InvalidArgument(f"a test matrix needs at least 1 row, got {rows}")
        if dtype.is_complex:
            raise InvalidArgument(f"{kind} test matrices are real, got {dtype}")
        self.kind, self.rows, self.seed, self.role = kind, rows, seed, role
        self.dtype, self.device = dtype, torch.device(device)

    def columns(self, start: int, stop: int) -> Tensor:
        """Columns start..stop, (D, stop - start), each contiguous."""
        return self.panel(slice(0, self.rows), start, stop)

    def panel(self, rows: slice, start: int, stop: int) -> Tensor:
        """The given rows of columns start..stop."""
        first, last, _ = rows.indices(self.rows)
        block = np.empty((stop - start, max(0, last - first)))
        for column in range(start, stop):
            for tile in range(first // TILE_ROWS, -(-last // TILE_ROWS)):
                low = tile * TILE_ROWS
                begin, end = max(first, low), min(last, low + TILE_ROWS)
                block[column - start, begin - first : end - first] = self._tile(column, tile, end - low)[begin - low :]
        return torch.from_numpy(block).to(self.device, self.dtype).T

    def _tile(self, column: int, tile: int, rows: int) -> np.ndarray:
        name = f"curvscope {self.kind} {self.seed} {self.role} {column}".encode()
        key = int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "little")
        stream = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, tile]))
        return KINDS[self.kind](stream, rows)
