"""Where the eigenvalues are: the spectral density by stochastic Lanczos quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.estimators import _distribution as distribution
from curvscope.estimators._drawing import draw
from curvscope.estimators._ends import is_resolved, ladder
from curvscope.estimators._estimate import Estimate
from curvscope.estimators._outliers import Rule, count_outliers
from curvscope.store import Saved
from curvscope.system import Displayed, Hinted, checked, frame

POINTS = 1000
NEGATIVE = 1e-3
"""Share of the largest magnitude from which on the summary counts an eigenvalue as negative: zeros are many."""


@dataclass(frozen=True, repr=False)
class Density(Saved, Displayed, Hinted):
    r"""The spectrum of a D x D operator: known eigenvalues exactly, the others as a distribution.

    Of the D eigenvalues, ``exact`` are known (deflated, or resolved on the way); the other n = D - k by q quadratures, each of
    which has the mass 1 for all n of them. A quadrature's mass is an atom where its node has converged and spread
    evenly over the node's cell where not (see :func:`.distribution.cells`): there is no kernel width to choose.

    Attributes:
        size: D.
        exact: float64 (k,), ascending; each counts 1/D.
        nodes: float64 (q, m), ascending in each row.
        weights: float64 (q, m), shares of n; each row sums to 1.
        radii: float64 (q, m): an eigenvalue lies within this of its node.
        products: that it cost.
        seconds: that it took.
        provenance: operator fingerprint, numbers of probes and steps, seed.
    """

    size: int
    exact: Tensor
    nodes: Tensor
    weights: Tensor
    radii: Tensor
    products: int
    seconds: float
    provenance: dict[str, Any] = field(default_factory=dict)

    _instead: ClassVar[Mapping[str, str]] = {
        "x": "density.grid",
        "lambdas": "density.grid",
        "eigenvalues": "density.nodes (q, m), or density.exact",
        "y": "density.density",
        "histogram": "density.linear(points)",
        "summary": "print(density)",
        "mean": "density.trace.value / density.size",
        "to_dataframe": "density.to_pandas()",
        "to_csv": "density.to_pandas().to_csv(path)",
        "pdf": "density(points), or density.grid and density.values",
        "std": "density.frobenius_norm, as sqrt(||A||_F^2 / D - mean^2)",
        "min": "density.range[0]",
        "max": "density.range[1]",
        "median": "density.quantile(0.5)",
        "integral": "density.mass(low, high)",
        "integrate": "density.mass(low, high)",
        "negative": "density.mass(high=0)",
    }

    @property
    def values(self) -> Tensor:
        """Short for ``density``: the word for the numbers of every curve and density."""
        return self.density

    def __iter__(self) -> Iterator[Tensor]:
        """(grid, density), to unpack and to plot."""
        yield self.grid
        yield self.density

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """``density`` as a NumPy array."""
        return np.array(self.density.numpy(), dtype=dtype)

    def __call__(self, points: Any) -> Any:
        """The mean density in the bin of :attr:`grid` that holds a point, 0 outside; a number for a number, else float64."""
        grid, values = self.linear()
        wanted = torch.as_tensor(points, dtype=torch.float64, device="cpu")
        width = float(grid[1] - grid[0])
        index = ((wanted - (float(grid[0]) - width / 2)) / width).floor().long()
        found = torch.where((index >= 0) & (index < len(grid)), values[index.clamp(0, len(grid) - 1)], 0.0)
        return float(found) if found.ndim == 0 and not isinstance(points, Tensor) else found

    # --- masses -----------------------------------------------------------------------------------------------------------

    def cdf(self, points: Tensor) -> Tensor:
        """The share of eigenvalues up to each point, float64 (p,)."""
        points = torch.as_tensor(points, dtype=torch.float64, device="cpu").reshape(-1)
        known = torch.searchsorted(self.exact, points, right=True).double()
        return (known + self.unknown * self._cumulative(points).mean(dim=0)) / self.size

    @checked
    def mass(self, low: float = -math.inf, high: float = math.inf) -> Estimate:
        r"""The share of eigenvalues in [low, high].

        The standard error is the larger of the scatter of the probes and of what it is in theory for this share p of n
        eigenvalues, sqrt(2 p (1 - p) / ((n + 2) q)) with Wilson's correction for small p (few probes tell little about their
        own scatter), together with what the nodes about the two ends leave open.

        >>> from curvscope.estimators import density
        >>> found = density(torch.diag(torch.arange(1.0, 101.0, dtype=torch.float64)), method="lanczos", num_steps=20)
        >>> estimate = found.mass(50.5, 100)
        >>> abs(estimate.value - 0.5) < 3 * estimate.stderr
        True
        """
        if not low <= high:
            raise InvalidArgument(f"the interval [{low}, {high}] is empty: pass low <= high")
        ends = torch.tensor([low, high], dtype=torch.float64, device="cpu")
        known = int(((self.exact >= low) & (self.exact <= high)).sum())
        if not self.unknown:
            return Estimate(known / self.size, 0.0, self.products)
        inside = self._cumulative(ends)[:, 1] - self._cumulative(ends, inclusive=False)[:, 0]
        share, n, q = float(inside.mean()), self.unknown, len(inside)
        scatter = float(inside.var()) / q if q > 1 else 0.0
        theory = 2 * share * (1 - share) / ((n + 2) * q) + 1 / (n * q) ** 2 if 0 < share < 1 else 0.0
        across = (distribution.weight_across(self.nodes, self.radii, self.weights, end) for end in (low, high))
        stderr = math.sqrt(max(scatter, theory) + sum(weight**2 / 12 for weight in across))
        return Estimate((known + n * share) / self.size, n / self.size * stderr, self.products)

    @checked
    def count(self, low: float = -math.inf, high: float = math.inf) -> Estimate:
        """The number of eigenvalues in [low, high]: D times :meth:`mass`."""
        mass = self.mass(low, high)
        return Estimate(self.size * mass.value, self.size * mass.stderr, mass.products)

    @checked
    def quantile(self, share: float) -> float:
        """The point up to which this share of the eigenvalues lies, to the resolution of the quadrature.

        Raises:
            InvalidArgument: share not in [0, 1].
        """
        if not 0 <= share <= 1:
            raise InvalidArgument(f"share={share}: choose a number from 0 to 1")
        points = self._breaks
        at = int(torch.searchsorted(self.cdf(points), torch.tensor(share - 1e-12, device="cpu")).clamp(max=len(points) - 1))
        return float(points[at])

    # --- single eigenvalues -------------------------------------------------------------------------------------------------

    @checked
    def extremes(self, largest: bool = True) -> Tensor:
        """The eigenvalues at one end that the quadratures have resolved, from the outermost inwards, float64.

        The j-th node of any recurrence is at most the j-th eigenvalue (Cauchy), so the largest over the probes is taken. The
        list ends where a node's radius exceeds half its distance to the next one. Known pairs are merged in. A multiple
        eigenvalue appears once, unless it is known.
        """
        values, resolved = self._ladder(largest)
        return values[:resolved]

    @checked
    def outliers(self, rule: Rule = "ratio", *, most: int = 20) -> int:
        """Return how many of the largest eigenvalues stand out by a rule ("gap", "ratio", "elbow"); see :func:`count_outliers`.

        Only resolved eigenvalues and the node after them are looked at: with fewer than ``most`` of them the look ends sooner,
        which deflating the top pairs cures.
        """
        return count_outliers(self._ladder(True)[0], rule, most=most)

    @checked
    def bulk_edges(self, rule: Rule = "ratio", *, most: int = 20) -> tuple[float, float]:
        """(lowest, highest) eigenvalue that is not an outlier of its end by a rule; see :meth:`outliers`."""
        ends = []
        for sign in (-1, 1):
            values = sign * self._ladder(sign > 0)[0]
            ends.append(sign * float(values[min(count_outliers(values, rule, most=most), len(values) - 1)]))
        return ends[0], ends[1]

    # --- sums ---------------------------------------------------------------------------------------------------------------

    def sum(self, function: Callable[[Tensor], Tensor]) -> Estimate:
        r"""Tr f(A): the sum of f over all eigenvalues, from the same products; exact in expectation for polynomials.

        The standard error is the larger of the scatter of the probes and of the theoretical one for the estimated moments,
        sqrt(2 n (mean f^2 - (mean f)^2) / q). A resolved node stands for at least one of the n eigenvalues there, however
        little weight it has by chance.

        Args:
            function: f, from a float64 tensor of eigenvalues to one of the same shape.

        >>> from curvscope.estimators import density
        >>> found = density(torch.diag(torch.arange(1.0, 41.0, dtype=torch.float64)))
        >>> round(found.sum(torch.log).value, 4)    # ln 40!
        110.3206
        """
        known = float(function(self.exact).sum()) if len(self.exact) else 0.0
        if not self.unknown:
            return Estimate(known, 0.0, self.products)
        resolved = is_resolved(self.nodes, self.weights, self.radii)
        mean, stderr = distribution.mean_of(function(self.nodes), self.weights, resolved, self.unknown)
        return Estimate(known + self.unknown * mean, self.unknown * stderr, self.products)

    @property
    def trace(self) -> Estimate:
        """Tr A."""
        return self.sum(lambda values: values)

    @property
    def frobenius_norm(self) -> Estimate:
        """||A||_F."""
        square = self.sum(torch.square)
        root = math.sqrt(max(square.value, 0.0))
        return Estimate(root, square.stderr / (2 * root) if root else 0.0, self.products)

    @property
    def unknown(self) -> int:
        """N = D - k, the number of eigenvalues that are not known exactly."""
        return self.size - len(self.exact)

    # --- curves -------------------------------------------------------------------------------------------------------------

    @cached_property
    def grid(self) -> Tensor:
        """Middles of 1,000 bins from one end of the distribution to the other, float64."""
        return self.linear()[0]

    @cached_property
    def density(self) -> Tensor:
        """The mean density in each bin of :attr:`grid`; its integral is 1."""
        return self.linear()[1]

    @checked
    def linear(self, points: int = POINTS, *, low: float | None = None, high: float | None = None) -> tuple[Tensor, Tensor]:
        """(middles, density): the share of eigenvalues in each of ``points`` equal bins, over the bin's width.

        Args:
            points: number of bins.
            low: lower end; default that of the distribution: the smallest eigenvalue, or where what is unresolved may begin.
            high: upper end; default likewise.
        """
        span = float(self._breaks[0]), float(self._breaks[-1])
        low, high = span[0] if low is None else low, span[1] if high is None else high
        if not -math.inf < low <= high < math.inf:
            raise InvalidArgument(f"the interval [{low}, {high}] cannot be cut into bins: pass finite low <= high")
        pad = 1e-3 * (high - low) or 1e-3 * abs(high) or 1e-12
        edges = torch.linspace(low - pad, high + pad, points + 1, dtype=torch.float64, device="cpu")
        return (edges[1:] + edges[:-1]) / 2, self.cdf(edges).diff() / edges.diff()

    @checked
    def logarithmic(self, points: int = POINTS, *, sign: int = 1, floor: float | None = None) -> tuple[Tensor, Tensor]:
        """(middles, density) over bins of equal width in log10 of the magnitude, for one sign: shares a decade.

        Args:
            points: number of bins.
            sign: 1 for positive eigenvalues, -1 for negative ones.
            floor: magnitude where the bins begin; default 1e-6 of the largest magnitude. What lies below is not shown.
        """
        if sign not in (1, -1):
            raise InvalidArgument(f"sign={sign}: choose 1 or -1")
        high = max(abs(end) for end in self.range) * 1.001 or 1.0
        low = 1e-6 * high if floor is None else floor
        if not 0 < low < high:
            raise InvalidArgument(f"floor={floor}: choose a positive number below the largest magnitude {high:.3g}")
        edges = torch.logspace(math.log10(low), math.log10(high), points + 1, dtype=torch.float64, device="cpu")
        shares = self.cdf(edges).diff() if sign == 1 else self.cdf(-edges).diff().neg()
        return (edges[1:] * edges[:-1]).sqrt(), shares / edges.log10().diff()

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest eigenvalue found."""
        every = torch.cat([self.exact, self.nodes.flatten()])
        return float(every.min()), float(every.max())

    def distance(self, eigenvalues: Tensor) -> float:
        """Wasserstein-1 distance to a spectrum that is known: the integral of the difference of distribution functions.

        >>> from curvscope.estimators import density
        >>> A = torch.diag(torch.arange(1.0, 31.0, dtype=torch.float64))
        >>> round(density(A).distance(torch.arange(1.0, 31.0)), 12)
        0.0
        """
        known = torch.as_tensor(eigenvalues, dtype=torch.float64, device="cpu").sort().values
        breaks = torch.cat([self._breaks, known]).unique()
        above = self.cdf(breaks) - torch.searchsorted(known, breaks, right=True).double() / len(known)
        lower = torch.searchsorted(self.exact, breaks).double()
        lower = (lower + self.unknown * self._cumulative(breaks, inclusive=False).mean(dim=0)) / self.size
        return distribution.distance(breaks, above, lower - torch.searchsorted(known, breaks).double() / len(known))

    def to_pandas(self) -> Any:
        """A data frame with a row for each bin of :attr:`grid`: eigenvalue, density; needs pandas."""
        return frame({"eigenvalue": self.grid.tolist(), "density": self.density.tolist()})

    @checked
    def plot(
        self, ax: Any = None, *, scale: Literal["linear", "log"] = "linear", log: bool = True, label: str | None = None
    ) -> Any:
        """Draw the density, with a tick for each exact pair, into matplotlib axes (default: pyplot's current ones).

        Args:
            ax: axes.
            scale: of the abscissa: "linear", or "log" for magnitudes, positive and negative eigenvalues apart.
            log: whether the ordinate is logarithmic.
            label: of the line, for a legend.

        Returns:
            The axes.
        """
        if scale not in ("linear", "log"):
            raise InvalidArgument(f"scale={scale!r}: choose 'linear' or 'log'")
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.gca()
        return draw(self, ax, scale, log=log, name=label)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        low, high = self.range
        return {
            "D": self.size,
            "products": self.products,
            "seconds": self.seconds,
            "range": [low, high],
            "exact": self.exact.tolist(),
            "nodes": self.nodes.tolist(),
            "weights": self.weights.tolist(),
            "radii": self.radii.tolist(),
            "provenance": self.provenance,
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Density:
        """Restore a density from the result of :meth:`to_dict`.

        >>> from curvscope.estimators import density
        >>> found = density(torch.diag(torch.arange(1.0, 31.0, dtype=torch.float64)), method="lanczos", num_steps=5)
        >>> Density.from_dict(found.to_dict()).quantile(0.5) == found.quantile(0.5)
        True
        """
        probes, steps = len(plain["nodes"]), len(plain["nodes"][0]) if plain["nodes"] else 0
        exact, *found = (
            torch.tensor(plain[name], dtype=torch.float64, device="cpu") for name in ("exact", "nodes", "weights", "radii")
        )
        nodes, weights, radii = (part.reshape(probes, steps) for part in found)
        return cls(plain["D"], exact, nodes, weights, radii, plain["products"], plain["seconds"], plain["provenance"])

    # --- inside -------------------------------------------------------------------------------------------------------------

    def _ladder(self, largest: bool) -> tuple[Tensor, int]:
        """The eigenvalues of one end as far as they are resolved and the node after them; how many are resolved."""
        if not self.unknown:
            return self.exact.flip(0) if largest else self.exact, len(self.exact)
        return ladder(self.exact, self.nodes, self.weights, self.radii, largest=largest)

    @cached_property
    def _cells(self) -> tuple[Tensor, Tensor]:
        return distribution.cells(self.nodes, self.radii, self.weights)

    @cached_property
    def _breaks(self) -> Tensor:
        """Points where the distribution function bends or jumps."""
        breaks: Tensor = torch.cat([self.exact, *(side.flatten() for side in self._cells)]).unique()
        return breaks

    def _cumulative(self, points: Tensor, *, inclusive: bool = True) -> Tensor:
        if not len(self.weights):
            return torch.zeros(1, len(points), dtype=torch.float64, device="cpu")
        return distribution.cumulative(*self._cells, self.weights, points, inclusive=inclusive)

    def __str__(self) -> str:
        """Summarise the spectrum in a few lines."""
        low, high = self.range
        counts = ", ".join(f"{self.outliers(rule)} by {rule}" for rule in ("gap", "ratio", "elbow"))
        edges = self.bulk_edges()
        floor = -NEGATIVE * max(abs(low), abs(high))
        negative = self.mass(high=floor)
        others = f", {len(self.nodes)} probes x {self.nodes.shape[1]} steps for the others" if self.unknown else ""
        bound, reason = (self.provenance.get(name) for name in ("rank_bound", "rank_reason"))
        rank = [f"rank             at most {bound}: {reason}; at least {self.size - bound} zeros"] if bound is not None else []
        return "\n".join(
            [
                f"Spectrum of a {self.size}-parameter operator: {len(self.exact)} exact{others}",
                *rank,
                f"range            [{low:.4g}, {high:.4g}]",
                f"outliers         {counts}",
                f"bulk (ratio)     [{edges[0]:.3g}, {edges[1]:.3g}]",
                f"below {floor:<10.2g} {100 * negative.value:.3g} % +- {100 * negative.stderr:.2g} of the eigenvalues",
                f"trace            {self.trace.value:.5g} +- {self.trace.stderr:.1g}",
                f"Frobenius norm   {self.frobenius_norm.value:.5g} +- {self.frobenius_norm.stderr:.1g}",
                f"cost             {self.products} products, {self.seconds:.1f} s",
            ]
        )
