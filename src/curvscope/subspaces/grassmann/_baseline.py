"""What chance gives: principal angles of random subspaces in any dimension, at the cost of small matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.subspaces.grassmann._metrics import Metric, Unequal, similarity_of_angles
from curvscope.system import checked

Kind = Literal["spaces", "masks"]
"""What is drawn at random: see :func:`baseline`."""


@dataclass(frozen=True)
class Baseline:
    """Similarities of independent uniformly random pairs.

    Attributes:
        metric: which similarity.
        samples: (n,) float64, ascending.

    >>> chance = Baseline("overlap", torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64))
    >>> round(chance.mean, 3), round(chance.z(0.5), 3)
    (0.2, 3.0)
    """

    metric: Metric
    samples: Tensor

    @property
    def mean(self) -> float:
        """Of the samples."""
        return float(self.samples.mean())

    @property
    def std(self) -> float:
        """Standard deviation of one pair."""
        return float(self.samples.std())

    @property
    def median(self) -> float:
        """Of the samples, the mean of the middle two when their number is even."""
        return self.quantile(0.5)

    def quantile(self, q: float) -> float:
        """The q-quantile, interpolated."""
        return float(self.samples.quantile(q))

    def z(self, value: float) -> float:
        """Standard deviations by which ``value`` lies above the mean."""
        return (value - self.mean) / self.std

    def ratio(self, value: float) -> float:
        """``value`` over the mean."""
        return value / self.mean


@checked
def baseline(
    size: int,
    first: int,
    second: int | None = None,
    *,
    metric: Metric = "overlap",
    kind: Kind = "spaces",
    samples: int = 1000,
    seed: int = 0,
    unequal: Unequal = "inclusion",
) -> Baseline:
    """Similarity of independent random subspaces of dimensions ``first`` and ``second`` in dimension ``size``.

    Args:
        size: D.
        first: k1.
        second: k2; default k1.
        metric: see :func:`.metrics.similarity`.
        kind: "spaces": at least one of the two is a uniformly random subspace (the other may be anything, such as a mask:
            the law is the same by rotation invariance); "masks": uniformly random masks.
        samples: how many pairs.
        seed: of the pairs.
        unequal: see :func:`.metrics.distance`.

    Cost: O(k^3) a sample, whatever D is.

    >>> chance = baseline(10_000_000, 5, metric="projection_f", samples=100)
    >>> chance.z(0.1) > 100
    True
    """
    if kind not in get_args(Kind):
        raise InvalidArgument(f"kind={kind!r}: choose one of {', '.join(get_args(Kind))}")
    if samples < 2:
        raise InvalidArgument(f"samples={samples}: choose at least 2")
    second = first if second is None else second
    generator = torch.Generator().manual_seed(seed)
    draw = random_angles if kind == "spaces" else random_mask_angles
    values = [
        similarity_of_angles(draw(size, first, second, generator), metric, (first, second), unequal=unequal)
        for _ in range(samples)
    ]
    return Baseline(metric, torch.tensor(values, dtype=torch.float64, device="cpu").sort().values)


@checked
def random_angles(size: int, first: int, second: int, generator: torch.Generator) -> Tensor:
    """Principal angles, ascending, of a uniformly random subspace of dimension k2 with any fixed one of dimension k1.

    The fixed one may be taken as the first k1 axes; the R factors of the two Gaussian blocks above and below are drawn
    directly (Bartlett), so that nothing of length D appears. Sines and cosines both come from singular values, so that small
    and large angles are right.

    Source: Bartlett (1933); Muirhead (1982), theorem 3.2.14.

    >>> random_angles(10**9, 3, 2, torch.Generator().manual_seed(0)).shape
    torch.Size([2])
    """
    larger, smaller = max(first, second), min(first, second)
    if not 1 <= smaller <= larger <= size:
        raise InvalidArgument(f"dimensions {first} and {second} in {size}: choose 1 to D = {size}")
    if larger + smaller > size:  # they intersect; the other angles are those of the orthogonal complements
        zeros = torch.zeros(larger + smaller - size, dtype=torch.float64, device="cpu")
        return zeros if larger == size else torch.cat([zeros, random_angles(size, size - smaller, size - larger, generator)])
    above = _gaussian_factor(larger, smaller, generator)
    below = _gaussian_factor(size - larger, smaller, generator)
    basis = torch.linalg.qr(torch.cat([above, below])).Q
    cosines = torch.linalg.svdvals(basis[: len(above)]).clamp(max=1.0)
    sines = torch.linalg.svdvals(basis[len(above) :]).clamp(max=1.0)
    return torch.where(cosines.square() > 0.5, sines.flip(0).asin(), cosines.acos())


@checked
def random_mask_angles(size: int, first: int, second: int, generator: torch.Generator) -> Tensor:
    """Principal angles (0 or pi/2) of uniformly random masks of ``first`` and ``second`` of ``size`` parameters.

    >>> random_mask_angles(100, 100, 2, torch.Generator().manual_seed(0)).tolist()    # all parameters hold any two
    [0.0, 0.0]
    """
    if not 1 <= min(first, second) <= max(first, second) <= size:
        raise InvalidArgument(f"dimensions {first} and {second} in {size}: choose 1 to D = {size}")
    chosen = torch.randperm(size, generator=generator, device="cpu")[: min(first, second)]
    outside = (chosen >= max(first, second)).sort().values
    return outside.double() * (torch.pi / 2)


def _gaussian_factor(rows: int, width: int, generator: torch.Generator) -> Tensor:
    """The R factor of a (rows, width) Gaussian matrix, at most ``width`` rows: chi on the diagonal, Gaussian above."""
    height = min(rows, width)
    factor = torch.randn(height, width, generator=generator, dtype=torch.float64, device="cpu").triu(1)
    freedom = rows - torch.arange(height, dtype=torch.float64, device="cpu")
    # chi^2 with n degrees of freedom is twice a Gamma(n/2)
    factor.diagonal().copy_((2 * torch._standard_gamma(freedom / 2, generator=generator)).sqrt())
    return factor
