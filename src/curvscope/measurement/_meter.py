"""Products, counted, timed and looked at: the only way in which solvers touch an operator."""

from __future__ import annotations

import cmath
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from curvscope.errors import NotFinite
from curvscope.measurement._distributed import Distributed
from curvscope.measurement._workspace import Workspace
from curvscope.operators import ProductsCheck
from curvscope.operators.base import Operator
from curvscope.sketches import TestMatrix
from curvscope.system import Advance, Contention, Progress, float32_products, give_back, long_work, stage

SQUARABLE = (1e-145, 1e145)
"""Magnitudes whose squares are numbers in double precision, with something to spare for sums and rounding."""
TRIM_FROM = 1 << 15
"""Rows from which freed memory is returned to the system after each stage: below, that takes longer than small stages."""
LARGEST_POWER = 300
"""Powers of ten that are numbers in double precision, with something to spare."""


def check_scale(products: Tensor) -> None:
    """Raise NotFinite where products are too small or too large for their dtype.

    In double precision their squares must be numbers, in single precision they must be so large that rounding is relative.
    """
    largest = float(torch.linalg.vector_norm(products, ord=torch.inf)) if products.numel() else 0.0
    if not largest:
        return
    power = round(-math.log10(largest))
    parts = [power] if abs(power) <= LARGEST_POWER else [power - power // 2, power // 2]  # 1e310 is not a number
    factor = " and by ".join(f"1e{part}" for part in parts)
    if torch.finfo(products.dtype).bits == 64:
        least, most, why = *SQUARABLE, "whose squares are not numbers in double precision"
        advice = f"multiply the operator by {factor}"
    else:
        finfo = torch.finfo(products.dtype)
        least, most, why = finfo.smallest_normal / finfo.eps, math.inf, "which single precision rounds to few digits or to zero"
        advice = f"take the operator in float64, and multiply it by {factor}"
    if not least < largest < most:
        raise NotFinite(
            f"products have entries of up to {largest:.0e}, {why}: {advice}, and divide its eigenvalues by that afterwards"
        )


def _random_scale(apply: Callable[[Tensor], Tensor], like: Tensor) -> float:
    """The norm of the product of a random unit vector: one product, which is not counted."""
    random = TestMatrix("gaussian", like.shape[0], seed=0, role="symmetry", dtype=like.dtype, device=like.device).columns(0, 1)
    return float(torch.linalg.vector_norm(apply(random / torch.linalg.vector_norm(random))))


class Meter:
    """An operator whose products are counted.

    Attributes:
        operator: what is measured.
        products: vectors multiplied so far.
        passes: blocks multiplied so far: passes over the data.
        searched: products of searches for missed pairs, among them.
        last_seconds: of the last block.
        seconds: wall time of each stage, and of the products in all of them under ``"products"``; earlier sessions of a run
            are counted.
        workspace: where the matrices of the solve lie, and what of it is kept.
        distributed: who computes the products; None: this process.
        symmetry: looks at the first products of an operator whose symmetry was only assumed; solvers that take products with
            the adjoint turn it off.
        contention: looks whether other processes hold cores that threads wait for; set where the number of threads is restored.
        is_adjoint: whether products with A stand for those with A* and the other way round.
    """

    is_adjoint = False

    def __init__(
        self,
        operator: Operator,
        progress: Progress = None,
        workspace: Workspace | None = None,
        distributed: Distributed | None = None,
    ) -> None:
        self.workspace, self.distributed = workspace or Workspace(), distributed
        # A view: neither the memory bound nor the strategy of this work stays with the caller's operator.
        self.operator = operator.view(memory=self.workspace.products, strategy_report=self.workspace.recorded_strategy())
        self.products = self.passes = self.searched = 0
        self.last_seconds = 0.0
        self.seconds: dict[str, float] = {"products": 0.0}
        self.progress = progress
        self.contention: Contention | None = None
        self._advance: Advance = lambda steps=1, note="": None
        self.symmetry = ProductsCheck(hermitian=operator.assumed_hermitian, size=operator.shape[0], rounding=operator.rounding)

    def multiply(self, block: Tensor, note: str = "") -> Tensor:
        """The product operator @ block for a (D, b) block.

        Raises:
            NotFinite: a product has NaN or infinity in it; the message says which. Or squares of the first have.
        """
        return self._count(block, note, adjoint=self.is_adjoint)

    def multiply_adjoint(self, block: Tensor, note: str = "") -> Tensor:
        """Operator* @ block for a (m, b) block; see :meth:`multiply`."""
        return self._count(block, note, adjoint=not self.is_adjoint)

    def _count(self, block: Tensor, note: str, *, adjoint: bool) -> Tensor:
        apply = self.operator.adjoint_matmul if adjoint else self.operator.__matmul__
        if self.distributed is not None:
            apply = partial(self.distributed.multiply, adjoint=adjoint)
        start = time.perf_counter()
        with long_work():
            result = apply(block)
        if not cmath.isfinite(result.sum().item()):
            self._raise_not_finite(result)
        if not self.products:
            check_scale(result)
        if self.symmetry.active and not adjoint:
            self.symmetry.look(block, result, partial(_random_scale, apply, block))
        self.count(block.shape[1], time.perf_counter() - start, note)
        if self.contention is not None and self.distributed is None:
            self.contention.look()
        return result

    def count(self, columns: int, seconds: float, note: str = "") -> None:
        """Count a block of products that was just computed."""
        self.products += columns
        self.passes += 1
        self.last_seconds = seconds
        self.seconds["products"] += seconds
        if self.distributed is None:
            self.operator = self.workspace.freeze(self.operator)
        self._advance(columns, note=note)

    def recall(self, columns: int, seconds: float, *, passes: int = 1) -> None:
        """Count a block of products that an earlier session measured."""
        self.products += columns
        self.passes += passes
        self.seconds["products"] += seconds
        self._advance(columns, note="from the run")

    def spent(self) -> dict[str, Any]:
        """Return what was counted so far, for :meth:`restore` in a later session."""
        counts = {"products": self.products, "passes": self.passes, "searched": self.searched}
        return {**counts, "seconds": dict(self.seconds)}

    def restore(self, spent: dict[str, Any]) -> None:
        """Go on counting from what an earlier session had spent."""
        self.products, self.passes, self.searched = spent["products"], spent["passes"], spent.get("searched", 0)
        self.seconds |= spent["seconds"]

    @property
    def report(self) -> dict[str, Any]:
        """Description of how products are computed, for provenance."""
        own = self.operator.strategy_report
        return own if self.distributed is None else {**own, **self.distributed.workers.description}

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[None]:
        """Announce and time a stage of ``total`` products, show its progress; what is beside them is exact to the dtype."""
        earlier = self.seconds.get(name, 0.0) or self.workspace.seconds_before(name)
        start, first = time.perf_counter(), self.products

        def spent() -> float:
            """Seconds of this stage so far, in earlier sessions too."""
            return earlier + time.perf_counter() - start

        with stage(name, total, self.progress) as shown, long_work(total), float32_products():

            def advance(steps: int = 1, note: str = "") -> None:
                """Note in the run and show that so many more products are done."""
                self.workspace.note(name, total=total, done=self.products - first, seconds=spent())
                shown(steps, note=note)

            self._advance = advance
            try:
                yield
            finally:
                self._advance = lambda steps=1, note="": None
                self.seconds[name] = spent()
                self.workspace.note(name, total=total, done=self.products - first, seconds=spent(), now=True)
                if max(self.operator.shape) >= TRIM_FROM:
                    give_back()

    def _raise_not_finite(self, result: Tensor) -> None:
        bad = (~torch.isfinite(result)).any(dim=0).nonzero().flatten().tolist()
        if bad:
            raise NotFinite(
                f"product {self.products + bad[0] + 1} has NaN or infinite entries ({len(bad)} of {result.shape[1]} in its "
                f"block): {self.operator.not_finite_advice}"
            )
