"""What a solve costs outside its products, found by doing it small: the same code, on an operator that costs nothing.

A simpler rule, the products alone, predicts 0.15 to 0.53 of the time of a solve at D = 7,030 and 301,066, the rehearsal 0.29
to 1.28 of it, and is nearer in each of eight cases (``benchmarks/plans.py``, twice, on cores that other work kept busy; the
planning took 0.6 to 1.7 seconds). What is left out grows with D k^2 by constants of the machine, its disk and its threads,
which no table would hold.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curvscope.measurement import DECISIONS
from curvscope.operators.base import Operator
from curvscope.operators.fingerprint import fingerprint
from curvscope.solvers.results import Solution
from curvscope.store import Run

MOST_ENTRIES = 4e6
"""Of the matrices that are rehearsed with: enough to leave the caches."""
MOST_PAIRS = 48
LEAST_ROWS = 4096

Solve = Callable[..., Solution]
"""``solve(operator, scale, **options)``: the method with its sizes divided by ``scale``."""


class ZeroCostDiagonal(Operator):
    """diag(1, -1/2, 1/3, ...), for next to nothing."""

    hermitian = True

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.shape, self.dtype, self.device = (size, size), dtype, device
        ranks = torch.arange(1, size + 1, dtype=torch.float64, device="cpu")
        self._diagonal = ((-1) ** (ranks + 1) / ranks).to(device, dtype)[:, None]

    def _apply(self, block: Tensor) -> Tensor:
        return self._diagonal * block

    def _fingerprint(self) -> str:
        return fingerprint("free", self.shape, self.dtype)


@dataclass(frozen=True)
class Rehearsed:
    """Seconds outside the products: ``fixed`` + ``per_row`` D, by stage."""

    fixed: dict[str, float]
    per_row: dict[str, float]

    def at(self, rows: int) -> dict[str, float]:
        """Seconds of each stage for D rows."""
        return {name: max(0.0, self.fixed[name] + rows * self.per_row[name]) for name in self.fixed}


def rehearse(solve: Solve, operator: Operator, k: int, columns: int, *, stored: Path | None) -> Rehearsed:
    """Do the work of a method at two small sizes, with fewer pairs where there are many, and tell how it grows.

    The work on tall matrices grows like D k^2, that on small ones like k^3.

    Args:
        solve: the method.
        operator: gives size, dtype and device; it is not multiplied.
        k: number of pairs.
        columns: of the largest matrix, for k pairs.
        stored: a folder on the disk that the run will be on, to rehearse there; None: in memory.

    Cost: two small solves, seconds at most.
    """
    scale = max(1.0, k / MOST_PAIRS)
    narrow = max(1, round(columns / scale))
    most = min(operator.shape[0], max(LEAST_ROWS, 4 * narrow, int(MOST_ENTRIES / narrow)))
    sizes = [most] if most == operator.shape[0] and scale == 1 else [max(most // 4, min(2 * narrow, most)), most]
    _timed(solve, operator, min(sizes), scale, stored)  # what is done for the first time costs more
    times = [_timed(solve, operator, size, scale, stored) for size in sizes]
    names = list(dict.fromkeys(name for time in times for name in time))
    last = {name: times[-1].get(name, 0.0) for name in names}
    if len(sizes) == 1 or sizes[0] == sizes[1]:
        return Rehearsed(last, dict.fromkeys(names, 0.0))
    slopes = {name: max(0.0, (last[name] - times[0].get(name, 0.0)) / (sizes[1] - sizes[0])) for name in names}
    fixed = {name: max(0.0, last[name] - slopes[name] * sizes[1]) for name in names}
    return Rehearsed(
        {name: seconds * scale**3 for name, seconds in fixed.items()},
        {name: seconds * scale**2 for name, seconds in slopes.items()},
    )


def _timed(solve: Solve, operator: Operator, size: int, scale: float, stored: Path | None) -> dict[str, float]:
    stand_in = ZeroCostDiagonal(size, operator.dtype, operator.device)
    options: dict[str, Any] = {"progress": False}
    if stored is None:
        cost = solve(stand_in, scale, **options).cost
    else:
        with tempfile.TemporaryDirectory(prefix="curvscope-plan-", dir=stored) as folder:
            run = Run.create(Path(folder) / "run", kind="eigs", options={})
            run.manifest[DECISIONS] = {"resident": False}
            run.save()
            cost = solve(stand_in, scale, run=run, **options).cost
    return {name: seconds for name, seconds in cost.stages.items() if name != "products"}
