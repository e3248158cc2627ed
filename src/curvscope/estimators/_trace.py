"""Trace and diagonal of a Hermitian operator, with standard errors, by parameter tensor, as exactly as asked."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, Protocol

import psutil
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, OutOfBudget
from curvscope.estimators._deflation import Deflation
from curvscope.estimators._estimate import Z95, DiagonalEstimate, Estimate, mean_and_stderr, student
from curvscope.estimators._probing import Hutchinson, HutchPlusPlus, Panel, XNysTrace, XTrace, panels
from curvscope.measurement import Meter, blocks
from curvscope.operators import EmpiricalFisher, GeneralizedGaussNewton, GradientSecondMoment, MonteCarloFisher, as_operator
from curvscope.operators.base import Operator
from curvscope.solvers import Solution, Units
from curvscope.solvers.driver import check_operator, metered
from curvscope.system import SAFE_SHARE, Progress, as_text, checked, same_choice

METHODS = ("auto", "krylov", "xtrace", "xnystrace", "hutch++", "hutchinson", "exact")
SAME_METHOD = {
    **dict.fromkeys(("hutchpp", "hutchplusplus", "hutchinson++"), "hutch++"),
    **dict.fromkeys(("rademacher", "girardhutchinson", "stochastic", "montecarlo"), "hutchinson"),
    **dict.fromkeys(("dense", "full"), "exact"),
}
"""Other names of these methods, without hyphens and underscores."""
SEMIDEFINITE = (GeneralizedGaussNewton, EmpiricalFisher, MonteCarloFisher, GradientSecondMoment)
BLOCK, FIRST_LOOK = 32, 8
FEW = 32
"""D up to which random signs are likely to repeat, or to depend on one another: samples then say nothing of their error."""
PILOT, FEWEST = 8, 3
"""One sample in so many products of the budget is taken by xtrace first, and at least so many, before "auto" decides."""
SMALL_SCATTER = 1.2816
"""Normal quantile of the share (10 %) of scatters that count as too small to be believed."""
VECTORS = {"xtrace": 4.0, "xnystrace": 4.0, "hutch++": 8 / 3}
"""Kept for each product of the budget, in float64, at most."""


@checked
def trace(
    operator: Any,
    *,
    method: Literal["auto", "krylov", "xtrace", "xnystrace", "hutch++", "hutchinson", "exact"] = "auto",
    max_products: int = 100,
    rtol: float | None = None,
    deflate: Solution | None = None,
    seed: int = 0,
    executor: Any = None,
    progress: Progress = None,
) -> Estimate:
    """The trace of a Hermitian operator, in all and for each parameter tensor, from the same products.

    Args:
        operator: D x D; anything that :func:`curvscope.as_operator` takes.
        method: "xtrace" (two products a sample), "xnystrace" (one product a sample, for positive semidefinite operators),
            "hutch++", "hutchinson" (no memory; as good as any on a flat spectrum), "exact" (D products), or "auto": exact where
            D products are allowed, hutchinson with ``deflate``, xnystrace for Gauss-Newton and Fisher matrices, else xtrace.
            Where the first samples of xtrace show that signs alone have a smaller error, as they have on a flat spectrum and
            for a nearly diagonal matrix, "auto" gives the rest of the budget to hutchinson. "krylov" does the same as "auto"
            for a Hessian. Matrices of D <= 32 that the budget has D products for are measured exactly by all.
        max_products: budget.
        rtol: stop when the half-width of the 95 % interval is at most this times the estimate; None: use the budget. An
            estimate that did not get there has the standard error that it has.
        deflate: a solution of this operator: the sum of its eigenvalues is known, only the rest is estimated.
        seed: of the random signs.
        executor: who computes the products, the columns of each block dealt out; see :func:`curvscope.eigsh`. None: this
            process.
        progress: see :data:`.progress.Progress`.

    Returns:
        ``.value, .stderr, .products, .interval`` and ``.layers``: the diagonal block of each parameter tensor; they add up.

    Cost: at most max_products products; memory: up to 3 vectors a product in float64 for hutch++, 4 for xtrace and xnystrace,
        3 blocks of 32 in all for hutchinson.

    Raises:
        InvalidArgument: an operator that is not square, symmetric and real (for xnystrace: semidefinite), a solution of another
            one, fewer than 6 products. NotFinite: a product has NaN in it. OutOfBudget: the samples do not fit into memory.
    Limits: intervals of three samples of xtrace (6 or 7 products) held the truth in 46 of 60 cases for a matrix of three equal
        eigenvalues; take 8 products or more. Eigenvalues in ``deflate`` are off by up to their residuals, whose sum is part of
        the standard error (not of those of the layers). Samples of xtrace and xnystrace share their sketch: their scatter is
        corrected (see :func:`.probing.jackknife`) by one factor for the trace and its layers.
    Source: Epperly, Tropp and Webber, SIMAX 2024 (arXiv 2301.07825); Meyer et al. (2021); Hutchinson (1990).

    >>> estimate = trace(torch.diag(0.5 ** torch.arange(300.0).double()), max_products=60)
    >>> round(estimate.value, 6), estimate.products
    (2.0, 60)
    """
    drive = _Drive(operator, method, max_products, rtol, deflate, seed, executor, progress)
    sums = LayerSums(drive.operator, signs=drive.random)
    products = drive.run(sums, lambda: sums.relative_half_width)
    value, stderr = sums.mean_and_stderr() if drive.random else (float(sums.total[0]), 0.0)
    layers = {name: sums.layer(name, products, exact=not drive.random) for name in sums.slices}
    unsure = 0.0 if deflate is None or drive.method == "exact" else float(deflate.residual_norms.sum())
    return Estimate(value, math.hypot(stderr, unsure), products, layers, sums.degrees if drive.random else math.inf)


@checked
def diagonal(
    operator: Any,
    *,
    method: Literal["auto", "krylov", "xtrace", "xnystrace", "hutch++", "hutchinson", "exact"] = "auto",
    max_products: int = 100,
    rtol: float | None = None,
    deflate: Solution | None = None,
    seed: int = 0,
    executor: Any = None,
    progress: Progress = None,
) -> DiagonalEstimate:
    """The diagonal of a Hermitian operator, each entry with its standard error.

    Args:
        operator: see :func:`trace`, also for the methods, which are the same.
        method: see :func:`trace`; "xtrace" is a symmetric XDiag.
        max_products: budget.
        rtol: stop when 1.96 ||stderr|| is at most this times ||value||.
        deflate: a solution of this operator: its part of the diagonal is known.
        seed: of the random signs.
        executor: who computes the products, the columns of each block dealt out; see :func:`curvscope.eigsh`. None: this
            process.
        progress: see :data:`.progress.Progress`.

    Cost and errors: as :func:`trace`.

    Limits: with ``deflate``, entries are off by up to the residuals of its pairs; standard errors of xtrace and xnystrace are
        corrected as those of the layers in :func:`trace`.
    Source: Epperly, Tropp and Webber (SIMAX 2024), section 5; Bekas, Kokiopoulou and Saad (2007).

    >>> diagonal(torch.diag(torch.arange(1.0, 151.0)), method="hutchinson", max_products=6).value[:3].tolist()
    [1.0, 2.0, 3.0]
    """
    drive = _Drive(operator, method, max_products, rtol, deflate, seed, executor, progress)
    moments = RowMoments(drive.operator.shape[0])
    products = drive.run(moments, lambda: _relative(float(moments.mean.norm()), Z95 * float(moments.stderr.norm())))
    stderr = moments.stderr if drive.random else torch.zeros_like(moments.mean)
    named = getattr(drive.operator, "parameters", None)
    layout = {} if named is None else {name: list(shape) for name, shape in zip(named.names, named.shapes, strict=True)}
    return DiagonalEstimate(moments.mean, stderr, products, layout)


class Consumer(Protocol):
    """Receiver of samples, which keeps what its estimate needs.

    Attributes:
        correction: factor for the standard errors of samples that are not independent.
    """

    correction: float

    def clear(self) -> None:
        """Forget all samples."""

    def add(self, samples: Iterable[Panel]) -> None:
        """Take in samples, whole columns, panel by panel."""


class LayerSums:
    r"""Sums of each sample over all rows and over those of each parameter tensor.

    Few samples of a form w* B w with random signs tell little about their own scatter: where B has one large eigenvalue, two of
    them are often equal by chance. Their entries d = w o (B w) tell more: Var(w* B w) = 2 sum_i Var(d_i) (both are 2 sum over
    i != j of B_ij^2), and for a part of the rows it is at least the sum of their own. A scatter so far below this that normal
    samples would show it in one of ten cases is replaced by it.

    Args:
        operator: for the names.
        signs: whether samples are such forms, given what they share.

    Attributes:
        slices: rows of each tensor; empty without names.
        total: float64 (m,).
    """

    def __init__(self, operator: Operator, *, signs: bool = False) -> None:
        parameters = getattr(operator, "parameters", None)
        self.slices = parameters.slices if parameters is not None else {}
        self._entries = RowMoments(operator.shape[0]) if signs else None
        self.clear()

    def clear(self) -> None:
        """See :class:`Consumer`."""
        self.correction = 1.0
        self.total = torch.zeros(0, dtype=torch.float64, device="cpu")
        self._layers = torch.zeros(len(self.slices), 0, dtype=torch.float64, device="cpu")
        if self._entries is not None:
            self._entries.clear()

    def add(self, samples: Iterable[Panel]) -> None:
        """See :class:`Consumer`."""
        if self._entries is not None:
            self._entries.add(self._summed(samples))
        else:
            deque(self._summed(samples), maxlen=0)

    def _summed(self, samples: Iterable[Panel]) -> Iterator[Panel]:
        """Sum panels up while they pass."""
        total, layers = None, None
        for rows, block in samples:
            if total is None or layers is None:
                total = torch.zeros(block.shape[1], dtype=torch.float64, device="cpu")
                layers = torch.zeros(len(self.slices), block.shape[1], dtype=torch.float64, device="cpu")
            total += block.sum(dim=0).cpu()
            for row, place in enumerate(self.slices.values()):
                first, last = max(place.start, rows.start) - rows.start, min(place.stop, rows.stop) - rows.start
                if first < last:
                    layers[row] += block[first:last].sum(dim=0).cpu()
            yield rows, block
        if total is not None and layers is not None:
            self.total, self._layers = torch.cat([self.total, total]), torch.cat([self._layers, layers], dim=1)

    def mean_and_stderr(self) -> tuple[float, float]:
        """Of the sum over all rows."""
        mean, stderr = mean_and_stderr(self.total)
        return float(mean), self._believed(float(stderr) * self.correction, 2.0, slice(None))

    def _believed(self, stderr: float, factor: float, rows: slice) -> float:
        """The standard error of the sum over some rows, unless it is too small for the scatter of the entries."""
        if self._entries is None or self._entries.count < 2:
            return stderr
        expected = math.sqrt(factor) * float(self._entries.stderr[rows].norm())
        return expected if stderr**2 < _least_variance(self.degrees) * expected**2 else stderr

    @property
    def degrees(self) -> int:
        """Of freedom of the standard errors."""
        return len(self.total) - 1

    @property
    def relative_half_width(self) -> float:
        """Half-width of the 95 % interval over the value, of the sum over all rows."""
        value, stderr = self.mean_and_stderr()
        return _relative(value, student(self.degrees) * stderr if stderr else 0.0)

    def layer(self, name: str, products: int, *, exact: bool) -> Estimate:
        """The estimate for one tensor."""
        value, stderr = mean_and_stderr(self._layers[list(self.slices).index(name)])
        if exact:
            return Estimate(float(value), 0.0, products)
        believed = self._believed(float(stderr) * self.correction, 1.0, self.slices[name])
        return Estimate(float(value), believed, products, degrees=self.degrees)


class RowMoments:
    """Mean and standard error of each row over the samples."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.clear()

    def clear(self) -> None:
        """See :class:`Consumer`."""
        self.correction = 1.0
        self.count, self.mean, self._squares = (
            0,
            torch.zeros(self.size, device="cpu").double(),
            torch.zeros(self.size, device="cpu").double(),
        )

    def add(self, samples: Iterable[Panel]) -> None:
        """See :class:`Consumer`; sums of squares about the mean are updated, so that nothing cancels (Chan et al. 1983)."""
        count = 0
        for rows, block in samples:
            block, count = block.cpu(), block.shape[1]
            mean, shift = block.mean(dim=1), block.mean(dim=1) - self.mean[rows]
            weight = self.count * count / (self.count + count)
            self._squares[rows] += (block - mean[:, None]).square().sum(dim=1) + weight * shift.square()
            self.mean[rows] += shift * count / (self.count + count)
        self.count += count

    @property
    def stderr(self) -> Tensor:
        """Of the mean; infinite for a single sample."""
        if self.count < 2:
            return torch.full_like(self.mean, torch.inf)
        return (self._squares / (self.count - 1) / self.count).sqrt() * self.correction


class _Drive:
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
        return "xnystrace" if isinstance(self.operator, SEMIDEFINITE) else "xtrace"

    def _check_memory(self) -> None:
        needed = int(8 * self.operator.shape[0] * self.budget * VECTORS.get(self.method, 0))
        free = int(SAFE_SHARE * psutil.virtual_memory().available)
        if self.operator.device.type == "cpu" and needed > free:
            raise OutOfBudget(
                f"{self.method} with {self.budget} products keeps {as_text(needed)}, {as_text(free)} are free: lower "
                "max_products, or use method='hutchinson'"
            )


def _least_variance(degrees: int) -> float:
    """The 10 % quantile of chi-square over its degrees of freedom (Wilson and Hilferty; exact for one)."""
    if degrees < 2:
        return 0.0158
    return max(0.0, 1 - 2 / (9 * degrees) - SMALL_SCATTER * math.sqrt(2 / (9 * degrees))) ** 3


def _relative(value: float, half_width: float) -> float:
    return half_width / abs(value) if value else (0.0 if half_width == 0 else torch.inf)
