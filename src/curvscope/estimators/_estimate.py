"""A number that was estimated, and how far it may be off."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

Z95 = 1.959963984540054
"""Standard errors on each side of a normal estimate that hold the truth with probability 0.95."""


@dataclass(frozen=True)
class Estimate:
    """An estimated number.

    Attributes:
        value: the estimate.
        stderr: its standard error; 0 where it is exact, infinite where one probe tells nothing about it.
        products: that it cost.
        layers: the same quantity for each parameter tensor, from the same products; empty for operators without names.
        degrees: of freedom of the standard error: the samples whose scatter it is, less one; infinite where theory gives it.

    >>> estimate = Estimate(10.0, 0.5, products=40)
    >>> print(estimate, [round(end, 2) for end in estimate.interval])
    10 +- 0.5 (40 products) [9.02, 10.98]
    """

    value: float
    stderr: float
    products: int
    layers: Mapping[str, Estimate] = field(default_factory=dict)
    degrees: float = math.inf

    @property
    def half_width(self) -> float:
        """Of the interval of 95 % confidence: few samples tell little of their own scatter, see :func:`student`."""
        return student(self.degrees) * self.stderr if self.stderr else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of 95 % confidence, for samples that are about normal."""
        return self.value - self.half_width, self.value + self.half_width

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{self.value:.6g} +- {self.stderr:.2g} ({self.products} products)"


@dataclass(frozen=True)
class DiagonalEstimate:
    """An estimated diagonal.

    Attributes:
        value: float64 (D,).
        stderr: float64 (D,), of each entry.
        products: that it cost.

    >>> import curvscope as cs
    >>> cs.diagonal(torch.diag(torch.tensor([3.0, 1.0]))).value.tolist()
    [3.0, 1.0]
    """

    value: Tensor
    stderr: Tensor
    products: int


@dataclass(frozen=True)
class NormBound:
    """A spectral norm: what was found, and what it is at most.

    Attributes:
        value: a lower bound up to rounding, and the best estimate.
        upper: the norm is at most this, except with probability ``failure`` over the random start.
        failure: that probability.
        products: that it cost.

    >>> import curvscope as cs
    >>> found = cs.spectral_norm(torch.diag(torch.tensor([3.0, -4.0])))
    >>> round(found.value, 6), found.upper >= found.value
    (4.0, True)
    """

    value: float
    upper: float
    failure: float
    products: int

    @property
    def stderr(self) -> float:
        """Upper - value: there is no scatter to tell a standard error from, the norm lies between the two."""
        return self.upper - self.value

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"in [{self.value:.6g}, {self.upper:.6g}] ({self.products} products)"


def student(degrees: float) -> float:
    """Standard errors on each side of a mean of ``degrees`` + 1 normal samples that hold the truth with probability 0.95.

    Within 0.2 % of Student's quantile. Source: Abramowitz and Stegun, 26.7.5; closed forms for 1 and 2 degrees.

    >>> [round(student(degrees), 2) for degrees in (1, 2, 5, 30, math.inf)]
    [12.71, 4.3, 2.57, 2.04, 1.96]
    """
    if degrees < 1:
        return math.inf
    if degrees == 1:
        return math.tan(0.475 * math.pi)
    if degrees == 2:
        return 0.95 * math.sqrt(2 / (1 - 0.95**2))
    x = Z95
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + sum(term / degrees**power for power, term in enumerate(terms, start=1))


def mean_and_stderr(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the last dimension and its standard error; infinite for a single sample."""
    count = samples.shape[-1]
    mean = samples.mean(dim=-1)
    if count < 2:
        return mean, torch.full_like(mean, math.inf)
    return mean, samples.std(dim=-1) / math.sqrt(count)
