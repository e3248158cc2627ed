"""Curvature against the number of samples, as a table, a figure and a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from curvscope.sampling._result import WORDS, Population
from curvscope.store import Saved
from curvscope.system import Displayed, Hinted, checked, frame

DRAWN = (1, 2, 3, 5, 10, 20, 50, 100)
"""Eigenvalues with a line in the figure; more cannot be told apart."""


@dataclass(frozen=True, repr=False)
class LearningCurve(Saved, Displayed, Hinted):
    """Eigenvalues, sums and number of outliers for each number of samples; see :func:`curvscope.learning_curve`.

    Attributes:
        sizes: (S,) int64, mean numbers of samples of the parts, ascending; the last one is all of them.
        parts: (S,) int64, parts of each size that were measured.
        eigenvalues: float64 (S, k), mean over the parts, in the order of the solution. NaN where no part has as many of this
            sign.
        spread: (S, k), standard deviation over the parts: the sampling error of one data set of this size. NaN for one part.
        sums: (S, k), mean of the sums of the eigenvalues of the same end up to this one.
        outliers: mean number of outliers of each size by rule, (S,) each; see :func:`curvscope.count_outliers`.
        unit: "samples" or "batches".
        population: intervals for the population from all samples.
        products: that it cost, with all of the data.

    >>> import torch
    >>> import curvscope as cs
    >>> _ = torch.manual_seed(0)
    >>> data = [(torch.randn(64, 2) * torch.tensor([3.0, 1.0]), torch.randn(64, 1))]
    >>> H = cs.hessian(torch.nn.Linear(2, 1, bias=False), torch.nn.MSELoss(), data)
    >>> solution = cs.eigsh(H, k=1)
    >>> curve = cs.learning_curve(H, solution, cs.population(H, solution), halvings=1)
    >>> curve.sizes.tolist(), curve.determined(10.0)
    ([32, 64], [1, 1])
    """

    sizes: Tensor
    parts: Tensor
    eigenvalues: Tensor
    spread: Tensor
    sums: Tensor
    outliers: Mapping[str, Tensor]
    unit: str
    population: Population
    products: float = field(default=0.0, compare=False)

    _instead: ClassVar[Mapping[str, str]] = {
        "n": "curve.sizes",
        "train_sizes": "curve.sizes",
        "values": "curve.eigenvalues",
        "std": "curve.spread",
        "stderr": "curve.spread",
        "intervals": "curve.population.best_interval, of all samples",
        "to_dataframe": "curve.to_pandas()",
    }

    def __len__(self) -> int:
        return len(self.sizes)

    def determined(self, factor: float = 2.0) -> list[int]:
        """Number of leading eigenvalues that each number of samples determines to a factor, as far as all samples tell.

        For all samples it is :meth:`.Population.determined`, for fewer what :meth:`.Population.samples_needed` extrapolates.
        """
        known = self.population.determined(factor)
        needed = [self.population.samples_needed(i, factor) for i in range(known)]
        found = []
        for size in self.sizes[:-1].tolist():
            missed = [i for i, number in enumerate(needed) if number > size]
            found.append(missed[0] if missed else known)
        return [*found, known]

    @checked
    def samples_needed(self, i: int, factor: float = 2.0) -> float:
        """About how many samples would determine eigenvalue ``i``; see :meth:`.Population.samples_needed`."""
        return self.population.samples_needed(i, factor)

    @checked
    def summary(self, factor: float = 2.0) -> str:
        """Say how many eigenvalues all samples and fewer of them determine, and what the last one would need, in words."""
        told = self.population.summary(factor)
        words = ["none", *WORDS[1:]]
        counts = [
            f"{size:,} {words[known] if known < len(words) else known}"
            for size, known in zip(self.sizes[:-1].tolist(), self.determined(factor)[:-1], strict=True)
        ]
        return f"{told} Fewer {self.unit} would determine about: {', '.join(reversed(counts))}."

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "sizes": self.sizes.tolist(),
            "parts": self.parts.tolist(),
            **{name: _plain(getattr(self, name)) for name in ("eigenvalues", "spread", "sums")},
            "outliers": {rule: numbers.tolist() for rule, numbers in self.outliers.items()},
            "determined": self.determined(),
            "unit": self.unit,
            "products": self.products,
            "population": self.population.to_dict(),
            "summary": self.summary(),
        }

    def to_pandas(self) -> Any:
        """A data frame with a row for each size and eigenvalue; needs pandas."""
        size, k = self.eigenvalues.shape
        return frame(
            {
                self.unit: self.sizes.repeat_interleave(k).tolist(),
                "i": list(range(1, k + 1)) * size,
                "eigenvalue": self.eigenvalues.flatten().tolist(),
                "spread": self.spread.flatten().tolist(),
                "sum": self.sums.flatten().tolist(),
            }
        )

    @checked
    def plot(self, ax: Any = None) -> Any:
        """Draw eigenvalues against the number of samples into matplotlib axes (default: pyplot's current ones).

        Bars about the means are one standard deviation of a data set of that size. At the right, beside all samples: the
        sampling intervals of the population.

        Returns:
            The axes.
        """
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.gca()
        sizes, k = self.sizes.double(), self.eigenvalues.shape[1]
        floor = float(self.eigenvalues[-1].abs().min()) / 100
        aside, best = float(sizes[-1]) * 1.3, self.population.best_interval
        for i in [number - 1 for number in DRAWN if number <= k]:
            values, bars = self.eigenvalues[:, i].abs(), self.spread[:, i].nan_to_num(0.0)
            style = {"marker": "o", "markersize": 3, "linewidth": 1, "label": f"eigenvalue {i + 1}"}
            (line, *_) = ax.errorbar(sizes, values, yerr=bars, **style)
            low, high = sorted((best[i] * self.eigenvalues[-1, i].sign()).tolist())
            ax.vlines(aside, max(low, floor), max(high, floor), color=line.get_color(), linewidth=3, alpha=0.6)
            aside *= 1.12
        ax.set(xscale="log", yscale="log", xlabel=f"number of {self.unit}", ylabel="|eigenvalue|")
        ax.annotate("population", (aside / 1.12, 1.01), xycoords=("data", "axes fraction"), ha="right", fontsize="small")
        ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        return ax

    def __str__(self) -> str:
        """A table that a person reads, and the answer in words."""
        return self.text()

    @checked
    def text(self, factor: float = 2.0) -> str:
        """The same, with the answer for another factor."""
        k = self.eigenvalues.shape[1]
        shown = [number - 1 for number in DRAWN if number <= k][:6]
        heads = [f"{self.unit:>9}", f"{'parts':>5}", *(f"{f'eigenvalue {i + 1}':>21}" for i in shown), f"{f'sum of {k}':>12}"]
        heads += [f"{'outliers':>9}", f"{'determined':>11}"]
        rows = [f"Curvature against the number of {self.unit}: mean +- standard deviation of a data set of that size", ""]
        rows.append("  ".join(heads))
        for place, known in enumerate(self.determined(factor)):
            cells = [f"{int(self.sizes[place]):>9,}", f"{int(self.parts[place]):>5}"]
            for i in shown:
                scatter = float(self.spread[place, i])
                bar = f" +- {scatter:.2g}" if not math.isnan(scatter) else ""
                cells.append(f"{f'{float(self.eigenvalues[place, i]):.4g}{bar}':>21}")
            total = float(self.eigenvalues[place].nansum())
            rows.append("  ".join([*cells, f"{total:>12.4g}", f"{float(self.outliers['ratio'][place]):>9.3g}", f"{known:>11}"]))
        return "\n".join([*rows, "", self.summary(factor), f"{self.products:.0f} products"])


def _plain(rows: Tensor) -> list[list[float | None]]:
    """Return the numbers of a matrix, None for NaN, which JSON does not have."""
    return [[None if math.isnan(x) else x for x in row] for row in rows.tolist()]
