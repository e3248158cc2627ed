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

    >>> estimate = Estimate(10.0, 0.5, products=40)
    >>> print(estimate, [round(end, 2) for end in estimate.interval])
    10 +- 0.5 (40 products) [9.02, 10.98]
    """

    value: float
    stderr: float
    products: int
    layers: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def interval(self) -> tuple[float, float]:
        """The normal interval of 95 % confidence."""
        return self.value - Z95 * self.stderr, self.value + Z95 * self.stderr

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


def mean_and_stderr(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the last dimension and its standard error; infinite for a single sample."""
    count = samples.shape[-1]
    mean = samples.mean(dim=-1)
    if count < 2:
        return mean, torch.full_like(mean, math.inf)
    return mean, samples.std(dim=-1) / math.sqrt(count)
