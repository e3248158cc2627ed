"""Products, counted, timed and looked at: the only way in which solvers touch an operator."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from curvscope.errors import NotFinite
from curvscope.execution import Progress, stage
from curvscope.execution.progress import Advance
from curvscope.operators import Operator


class Meter:
    """An operator whose products are counted.

    Attributes:
        operator: what is measured.
        products: vectors multiplied so far.
        passes: blocks multiplied so far: passes over the data.
        seconds: wall time of each stage, and of the products in all of them under ``"products"``.
    """

    def __init__(self, operator: Operator, progress: Progress = None) -> None:
        self.operator = operator
        self.products = self.passes = 0
        self.seconds: dict[str, float] = {"products": 0.0}
        self.progress = progress
        self._advance: Advance = lambda steps=1, note="": None

    def multiply(self, block: Tensor, note: str = "") -> Tensor:
        """The product operator @ block for a (D, b) block.

        Raises:
            NotFinite: a product has NaN or infinity in it; the message says which.
        """
        return self._count(self.operator.__matmul__, block, note)

    def multiply_adjoint(self, block: Tensor, note: str = "") -> Tensor:
        """Operator* @ block for a (m, b) block; see :meth:`multiply`."""
        return self._count(self.operator.adjoint_matmul, block, note)

    def _count(self, apply: Callable[[Tensor], Tensor], block: Tensor, note: str) -> Tensor:
        start = time.perf_counter()
        result = apply(block)
        if not bool(torch.isfinite(result.sum())):
            self._blame(result)
        self.products += block.shape[1]
        self.passes += 1
        self.seconds["products"] += time.perf_counter() - start
        self._advance(block.shape[1], note=note)
        return result

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[None]:
        """Time a stage of ``total`` products and show its progress."""
        start = time.perf_counter()
        with stage(name, total, self.progress) as self._advance:
            yield
        self._advance = lambda steps=1, note="": None
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def _blame(self, result: Tensor) -> None:
        bad = (~torch.isfinite(result)).any(dim=0).nonzero().flatten().tolist()
        if bad:
            raise NotFinite(
                f"product {self.products + bad[0] + 1} has NaN or infinite entries ({len(bad)} of {result.shape[1]} in its "
                "block): the loss is not twice differentiable at these parameters, or overflows; try dtype=torch.float64"
            )
