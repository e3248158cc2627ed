"""One estimation by random probes or columns: which method, how many products, when to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psutil
import torch

from curvscope.errors import InvalidArgument, OutOfBudget
from curvscope.estimators._deflation import Deflation
from curvscope.estimators._probing import Hutchinson, HutchPlusPlus, XNysTrace, XTrace, panels
from curvscope.estimators._samples import Consumer, RowMoments
from curvscope.measurement import Meter, blocks
from curvscope.operators import as_operator
from curvscope.solvers import Solution, Units
from curvscope.solvers.driver import check_operator, metered
from curvscope.system import SAFE_SHARE, Progress, as_text, same_choice

METHODS = ("auto", "krylov", "xtrace", "xnystrace", "hutch++", "hutchinson", "exact")
SAME_METHOD = {
    **dict.fromkeys(("hutchpp", "hutchplusplus", "hutchinson++"), "hutch++"),
    **dict.fromkeys(("rademacher", "girardhutchinson", "stochastic", "montecarlo"), "hutchinson"),
    **dict.fromkeys(("dense", "full"), "exact"),
}
"""Other names of these methods, without hyphens and underscores."""
BLOCK, FIRST_LOOK = 32, 8
FEW = 32
"""D up to which random signs are likely to repeat, or to depend on one another: samples then say nothing of their error."""
PILOT, FEWEST = 8, 3
"""One sample in so many products of the budget is taken by xtrace first, and at least so many, before "auto" decides."""
VECTORS = {"xtrace": 4.0, "xnystrace": 4.0, "hutch++": 8 / 3}
"""Kept for each product of the budget, in float64, at most."""


class Estimation:
    """One estimation: which method, how many products, when to stop.

    Attributes:
        meter: of the products, while :meth:`run` lasts and afterwards.
    """

    meter: Meter

    def __init__(
        self,
        operator: Any,
        method: str,
        max_products: int,
        rtol: float | None,
        deflate: Solution | None,
        seed: int,
        executor: Any,
        progress: Progress,
    ) -> None:
        self.operator = as_operator(operator)
        check_operator(self.operator)
        size = self.operator.shape[0]
        method = same_choice(method, SAME_METHOD)
        if method not in METHODS:
            raise InvalidArgument(f"method={method!r}: choose one of {', '.join(METHODS)}")
        if rtol is not None and not rtol > 0:
            raise InvalidArgument(f"rtol={rtol}: choose a positive number, such as 0.01")
        self.method, self.seed, self.rtol = "xtrace" if method == "krylov" else method, seed, rtol
        if method == "auto":
            self.method = self._automatic(size, max_products, deflate)
        self.may_switch = method in ("auto", "krylov")
        if size <= min(FEW, max_products):
            self.method = "exact"
        if self.method == "exact":
            if max_products < size:
                raise InvalidArgument(f"method='exact' takes D = {size} products: allow them with max_products")
        elif max_products < 6:
            raise InvalidArgument(f"max_products={max_products}: allow at least 6, better 50")
        self.budget = min(max_products, 2 * size)
        self.executor, self.progress = executor, progress
        self.deflation = Deflation(self.operator, lambda block: self.meter.multiply(block), deflate)
        self._check_memory()

    @property
    def random(self) -> bool:
        """True if the result is an estimate."""
        return self.method != "exact" and self.deflation.size > 0

    def run(self, consumer: Consumer, relative: Callable[[], float]) -> int:
        """Take samples until they are enough; the number of products."""
        with metered(self.operator, self.executor, self.progress) as self.meter, self.meter.stage(self.method, self.budget):
            match self.method:
                case "exact":
                    self._columns(consumer)
                case _ if not self.deflation.size:
                    source = Hutchinson(self.deflation, self.seed)
                    consumer.add((rows, source.known(rows)[:, None]) for rows in panels(self.operator.shape[0]))
                case "xtrace":
                    pilot = XTrace(self.deflation, self.seed)
                    if self.may_switch and self._signs_suffice(pilot):
                        consumer.add(pilot.plain())
                        self._independent(Hutchinson(self.deflation, self.seed), consumer, relative, first=pilot.count)
                    else:
                        self._exchangeable(pilot, consumer, relative)
                case "xnystrace":
                    self._exchangeable(XNysTrace(self.deflation, self.seed), consumer, relative)
                case "hutch++":
                    rank = min(self.budget // 3, self.deflation.size)
                    self._independent(HutchPlusPlus(self.deflation, self.seed, rank), consumer, relative)
                case _:
                    self._independent(Hutchinson(self.deflation, self.seed), consumer, relative)
        return self.meter.products

    def _columns(self, consumer: Consumer) -> None:
        size = self.operator.shape[0]
        units, exact = (
            Units(size, self.operator.dtype, self.operator.device),
            torch.empty(size, 1, dtype=torch.float64, device="cpu"),
        )
        for start, stop in blocks(size, BLOCK):
            exact[start:stop, 0] = self.meter.multiply(units.columns(start, stop))[start:stop].diagonal().cpu().double()
        consumer.add([(slice(0, size), exact)])

    def _signs_suffice(self, source: XTrace) -> bool:
        """Take the first samples of xtrace, and see whether the rest of the budget is better spent on signs alone.

        A sketch of c - 1 columns took the share f off the squared norm of the products. One of m - 1 takes about
        (m - 1) / (c - 1) times f, or less: its best columns come first. The variance of xtrace shrinks with what is left, and
        is compared with that of signs alone: they win where the spectrum is flat, so that a sketch helps little, and where the
        matrix is nearly diagonal, so that it harms.

        Variances are those of the entries: of a few sums they are too uncertain.
        """
        count = max(FEWEST, self.budget // PILOT)
        if 4 * count > self.budget or count > self.deflation.size // 2:
            return False
        source.extend(count)
        with_sketch, alone = RowMoments(source.size), RowMoments(source.size)
        with_sketch.add(source.samples())
        alone.add(source.plain())
        most, taken = min(self.budget // source.COST, self.deflation.size), source.share_taken()
        left = max(0.0, 1 - taken * (most - 1) / (count - 1)) / (1 - taken) if taken < 1 else 0.0
        expected = float(with_sketch.stderr.square().sum()) * left / most
        return float(alone.stderr.square().sum()) / (self.budget - count) < expected

    def _independent(
        self, source: Hutchinson | HutchPlusPlus, consumer: Consumer, relative: Callable[[], float], first: int = 0
    ) -> None:
        """Samples of signs that do not depend on one another; the ``first`` ones are there."""
        count = self.budget - self.meter.products
        for start, stop in blocks(count, BLOCK if self.rtol is None else FIRST_LOOK):
            if first and self._enough(relative):
                return
            consumer.add(source.block(first + start, first + stop))
            if self._enough(relative):
                return

    def _exchangeable(self, source: XTrace | XNysTrace, consumer: Consumer, relative: Callable[[], float]) -> None:
        most = min(self.budget // source.COST, self.deflation.size)
        target = most if self.rtol is None else min(most, max(source.count, FIRST_LOOK))
        while True:
            while source.count < target:
                source.extend(min(target, source.count + BLOCK))
            consumer.clear()
            consumer.add(source.samples())
            consumer.correction = source.correction()
            if target == most or self._enough(relative):
                return
            target = min(most, target + max(2, target // 2))

    def _enough(self, relative: Callable[[], float]) -> bool:
        return self.rtol is not None and relative() <= self.rtol

    def _automatic(self, size: int, max_products: int, deflate: Solution | None) -> str:
        if max_products >= size:
            return "exact"
        if deflate is not None:
            return "hutchinson"
        return "xnystrace" if self.operator.semidefinite else "xtrace"

    def _check_memory(self) -> None:
        needed = int(8 * self.operator.shape[0] * self.budget * VECTORS.get(self.method, 0))
        free = int(SAFE_SHARE * psutil.virtual_memory().available)
        if self.operator.device.type == "cpu" and needed > free:
            raise OutOfBudget(
                f"{self.method} with {self.budget} products keeps {as_text(needed)}, {as_text(free)} are free: lower "
                "max_products, or use method='hutchinson'"
            )
