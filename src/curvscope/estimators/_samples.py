"""What is kept of random samples: sums over rows and parameter tensors, moments of rows, and their standard errors."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from curvscope.estimators._estimate import Estimate, mean_and_stderr, student
from curvscope.estimators._probing import Panel
from curvscope.operators.base import Operator

SMALL_SCATTER = 1.2816
"""Normal quantile of the share (10 %) of scatters that count as too small to be believed."""


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
        return relative_to(value, student(self.degrees) * stderr if stderr else 0.0)

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


def _least_variance(degrees: int) -> float:
    """The 10 % quantile of chi-square over its degrees of freedom (Wilson and Hilferty; exact for one)."""
    if degrees < 2:
        return 0.0158
    return max(0.0, 1 - 2 / (9 * degrees) - SMALL_SCATTER * math.sqrt(2 / (9 * degrees))) ** 3


def relative_to(value: float, half_width: float) -> float:
    """Return a half-width over the value's magnitude; infinite where the value is 0 and the half-width is not."""
    return half_width / abs(value) if value else (0.0 if half_width == 0 else torch.inf)
