"""A quantity for every k, beside chance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument


@dataclass(frozen=True)
class OverlapCurve:
    """Overlap of the k first eigenvectors with another subspace, k = 1, ..., K.

    It can be indexed and turned into an array as its values can.

    Attributes:
        k: (K,) int64, 1 to K: the dimension of the first space.
        value: (K,) float64 in [0, 1].
        size: D.
        ranking: what the mask ranks by, or what the other space is.
        lower: (K,) float64, with ``upper`` an interval that holds the overlap of the true eigenspace; None without a
            certificate.
        upper: (K,) float64, or None.
        failure: probability that the interval is wrong; 0 without one.
        dimension: (K,) int64, of the other space; None: k too.

    >>> curve = OverlapCurve(torch.tensor([1, 2]), torch.tensor([0.5, 0.75]), size=8, ranking="example")
    >>> curve.at(2), curve.chance.tolist(), curve.ratio.tolist()
    (0.75, [0.125, 0.25], [4.0, 3.0])
    """

    k: Tensor
    value: Tensor
    size: int
    ranking: str
    lower: Tensor | None = None
    upper: Tensor | None = None
    failure: float = 0.0
    dimension: Tensor | None = None

    @property
    def chance(self) -> Tensor:
        """The mean for a uniformly random subspace, and for a uniformly random mask: k/D, or for another dimension k'/D."""
        return (self.k if self.dimension is None else self.dimension).double() / self.size

    @property
    def chance_std(self) -> Tensor:
        """Standard deviation about :attr:`chance` when one of the spaces is uniformly random; see :func:`chance_variance`.

        For a random mask against given eigenvectors use :func:`.chance.mask_null`: eigenvectors on few parameters scatter more.
        """
        other = self.k if self.dimension is None else self.dimension
        return chance_variance(self.size, self.k.double(), other.double()).sqrt() / self._normaliser

    @property
    def ratio(self) -> Tensor:
        """The value over chance level."""
        return self.value / self.chance

    @property
    def z(self) -> Tensor:
        """Standard deviations above chance, for a uniformly random subspace; 0 where there is no spread (k = D)."""
        return torch.nan_to_num((self.value - self.chance) / self.chance_std, nan=0.0, posinf=0.0, neginf=0.0)

    def at(self, k: int) -> float:
        """The overlap for one k."""
        if not 1 <= k <= len(self.k):
            raise InvalidArgument(f"k={k}: the curve goes from 1 to {len(self.k)}")
        return float(self.value[k - 1])

    def plot(self, ax: Any = None) -> Any:
        """Draw value, interval and chance level into matplotlib axes (default: pyplot's current ones); returns the axes."""
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.gca()
        (line,) = ax.plot(self.k, self.value, label=self.ranking)
        if self.lower is not None and self.upper is not None:
            ax.fill_between(self.k, self.lower, self.upper, color=line.get_color(), alpha=0.2, linewidth=0)
        ax.plot(self.k, self.chance, color="0.45", linestyle="--", label="chance")
        ax.set(xscale="log", yscale="log", xlabel="k", ylabel="overlap")
        return ax

    def to_dict(self) -> dict[str, object]:
        """Plain numbers, for JSON."""
        plain = {
            "D": self.size,
            "ranking": self.ranking,
            "k": self.k.tolist(),
            "overlap": self.value.tolist(),
            "chance": self.chance.tolist(),
        }
        if self.lower is None or self.upper is None:
            return plain
        return plain | {"lower": self.lower.tolist(), "upper": self.upper.tolist(), "failure": self.failure}

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, index: Any) -> Tensor:
        """``value[index]``."""
        return self.value[index]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.value)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """``value`` as a NumPy array."""
        return np.array(self.value.numpy(), dtype=dtype)

    @property
    def _normaliser(self) -> Tensor:
        return self.k.double()


@dataclass(frozen=True)
class FractionCurve(OverlapCurve):
    """Share of a vector's squared norm in the span of the k first eigenvectors; see :func:`.overlap.gradient_fraction`.

    As :class:`OverlapCurve`, with k/D for chance.
    """

    @property
    def _normaliser(self) -> Tensor:
        return torch.ones(len(self.k), dtype=torch.float64, device="cpu")

    @property
    def chance(self) -> Tensor:
        """k/D."""
        return self.k.double() / self.size


def chance_variance(size: int, first: Tensor, second: Tensor) -> Tensor:
    r"""Variance of tr(P P') for projectors of ranks k and k' in dimension D, one of them uniformly random.

    .. math:: \operatorname{Var} = \frac{2\, k k' (D - k)(D - k')}{D^2 (D - 1)(D + 2)}

    Over k^2 it is the variance of the overlap; its mean is k k'/D. Whatever the other space is.

    Source: second moments of the Haar measure on O(D), e.g. Collins and Sniady (2006).

    >>> round(float(chance_variance(3, torch.tensor(1.0), torch.tensor(1.0))), 4)    # on the sphere: 1/5 - 1/9
    0.0889
    """
    if size < 2:
        return torch.zeros_like(first)
    return 2 * first * second * (size - first) * (size - second) / (float(size) ** 2 * (size - 1) * (size + 2))
