"""A quantity for every k, beside chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.store import Saved
from curvscope.system import Displayed, Hinted, Numbers, checked, frame


@dataclass(frozen=True, repr=False)
class OverlapCurve(Saved, Numbers, Displayed, Hinted):
    """Overlap of the k first eigenvectors with another subspace, k = 1, ..., K.

    It can be indexed and turned into an array as its values can.

    Attributes:
        k: (K,) int64, 1 to K: the dimension of the first space.
        value: (K,) float64 in [0, 1].
        size: D.
        ranking: what the mask ranks by, or what the other space is.
        lower: (K,) float64, with ``upper`` the numerical interval: it holds the overlap of the true eigenspace of these
            samples' matrix. None without a certificate.
        upper: (K,) float64, or None.
        failure: probability that the interval is wrong; 0 without one.
        dimension: (K,) int64, of the other space; None: k too.
        sampling_lower: (K,) float64, with ``sampling_upper`` an interval for the overlap of the population's eigenspace, of
            :func:`curvscope.population`; ``lower`` and ``upper`` are about these samples' own. None without one.
        sampling_upper: (K,) float64, or None.

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
    sampling_lower: Tensor | None = None
    sampling_upper: Tensor | None = None

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

    _instead: ClassVar[Mapping[str, str]] = {
        "baseline": "curve.chance",
        "random": "curve.chance",
        "expected": "curve.chance",
        "overlap": "curve.value",
        "overlaps": "curve.value",
        "y": "curve.value",
        "x": "curve.k",
        "ks": "curve.k",
        "enrichment": "curve.ratio",
        "z_score": "curve.z",
        "zscore": "curve.z",
        "intervals": "curve.lower and curve.upper",
        "ci": "curve.lower and curve.upper",
        "error": "curve.lower and curve.upper, of a solution with a certificate",
        "stderr": "curve.lower and curve.upper, of a solution with a certificate",
        "sizes": "curve.dimension, of the other space; None where it is k",
        "mask": "curve.ranking, the name of the mask",
        "to_dataframe": "curve.to_pandas()",
        "to_numpy": "np.asarray(curve)",
        "summary": "print(curve)",
        "to_csv": "curve.to_pandas().to_csv(path)",
        "area": "torch.trapezoid(curve.value, curve.k)",
        "auc": "torch.trapezoid(curve.value, curve.k)",
        "null": "cs.mask_null(solution, mask)",
        "random_mean": "curve.chance",
        "std": "curve.chance_std",
    }

    def __call__(self, k: Any) -> Any:
        """The same as :meth:`at`."""
        return self.at(k)

    @checked
    def at(self, k: Any) -> Any:
        """The overlap for one k, a number; for several, float64 (n,)."""
        several = not hasattr(k, "__index__")
        wanted = [int(one) for one in k] if several else [int(k)]
        for one in wanted:
            if not 1 <= one <= len(self.k):
                raise InvalidArgument(f"k={one}: the curve goes from 1 to {len(self.k)}")
        found = self.value[[one - 1 for one in wanted]]
        return found if several else float(found[0])

    def to_pandas(self) -> Any:
        """A data frame with a row for each k: overlap, chance and, with a certificate, lower and upper; needs pandas."""
        return frame({name: numbers for name, numbers in self.to_dict().items() if isinstance(numbers, list)})

    def __str__(self) -> str:
        """A table of a few k."""
        last = len(self.k)
        shown = [*[k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if k < last][-9:], last]
        heading = f"{'k':>7}  {'value':>9}  {'chance':>9}  {'ratio':>8}"
        bounds = self.lower is not None and self.upper is not None
        rows = [
            f"Overlap with {self.ranking}, k = 1 to {last}, D = {self.size}",
            "",
            heading
            + (f"  {'numerical interval':<22}" if bounds else "")
            + ("  sampling interval" if self.sampling_lower is not None else ""),
        ]
        chance = self.chance
        for k in shown:
            value, usual = float(self.value[k - 1]), float(chance[k - 1])
            row = f"{k:>7}  {value:>9.4g}  {usual:>9.3g}  {value / usual if usual else float('inf'):>8.3g}"
            if self.lower is not None and self.upper is not None:
                numerical = f"[{float(self.lower[k - 1]):.4g}, {float(self.upper[k - 1]):.4g}]"
                row += f"  {numerical:<22}"
            if self.sampling_lower is not None and self.sampling_upper is not None:
                row += f"  [{float(self.sampling_lower[k - 1]):.4g}, {float(self.sampling_upper[k - 1]):.4g}]"
            rows.append(row.rstrip())
        return "\n".join(rows)

    @checked
    def plot(self, ax: Any = None, *, label: str | None = None, log: bool = True, **style: Any) -> Any:
        """Draw value, both intervals and chance level into matplotlib axes (default: pyplot's current ones); returns the axes.

        Args:
            ax: axes.
            label: of the line, for a legend; default: what the mask ranks by.
            log: whether both axes are logarithmic.
            style: of the line, such as ``color="r"``; see ``Axes.plot``.
        """
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.gca()
        (line,) = ax.plot(self.k, self.value, label=self.ranking if label is None else label, **style)
        if self.lower is not None and self.upper is not None:
            shade = {"color": line.get_color(), "alpha": 0.2, "linewidth": 0, "label": "numerical interval"}
            ax.fill_between(self.k, self.lower, self.upper, **shade)
        if self.sampling_lower is not None and self.sampling_upper is not None:
            band = {"color": line.get_color(), "alpha": 0.12, "hatch": "///", "linewidth": 0}
            ax.fill_between(self.k, self.sampling_lower, self.sampling_upper, label="sampling interval", **band)
        ax.plot(self.k, self.chance, color="0.45", linestyle="--", label="chance")
        scale = "log" if log else "linear"
        ax.set(xscale=scale, yscale=scale, xlabel="k", ylabel="overlap")
        return ax

    def to_dict(self) -> dict[str, object]:
        """Plain numbers, for JSON."""
        plain: dict[str, object] = {
            "D": self.size,
            "ranking": self.ranking,
            "k": self.k.tolist(),
            "overlap": self.value.tolist(),
            "chance": self.chance.tolist(),
        }
        if self.sampling_lower is not None and self.sampling_upper is not None:
            plain |= {"sampling_lower": self.sampling_lower.tolist(), "sampling_upper": self.sampling_upper.tolist()}
        if self.lower is None or self.upper is None:
            return plain
        return plain | {"lower": self.lower.tolist(), "upper": self.upper.tolist(), "failure": self.failure}

    @property
    def _normaliser(self) -> Tensor:
        return self.k.double()


@dataclass(frozen=True, repr=False)
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
