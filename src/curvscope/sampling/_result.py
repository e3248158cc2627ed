"""What a sample says about the population, beside what is known of the sample itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.sampling._student import student_quantile
from curvscope.solvers import Solution
from curvscope.store import Saved
from curvscope.subspaces import OverlapCurve
from curvscope.system import Displayed, Hinted, checked, frame

SHOWN = 20
"""Rows of the printed table."""
MOST_EXTRAPOLATED = 1000
"""Times the present samples, up to which the number that would be needed is told."""
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


@dataclass(frozen=True, repr=False)
class Group(Saved, Displayed):
    """Eigenvalues that the sample does not tell apart, with an interval for their mean.

    Attributes:
        members: their places in the solution, from 0.
        mean: of the sample's eigenvalues.
        estimate: of the mean of the population's eigenvalues at these places, corrected for bias.
        lower: of its sampling interval.
        upper: of it.

    >>> print(Group((1, 2), 5.1, 5.0, 4.5, 5.6))
    eigenvalues 2 to 3: mean 5 in [4.5, 5.6]
    """

    members: Sequence[int]
    mean: float
    estimate: float
    lower: float
    upper: float

    def __str__(self) -> str:
        first, last = min(self.members) + 1, max(self.members) + 1
        return f"eigenvalues {first} to {last}: mean {self.estimate:.4g} in [{self.lower:.4g}, {self.upper:.4g}]"


@dataclass(frozen=True, repr=False)
class Population(Saved, Displayed, Hinted):
    """Eigenvalues of a sample's matrix, with intervals for those of the population's; see :func:`curvscope.population`.

    Two kinds of intervals stand side by side. ``numerical_interval`` holds the eigenvalue of the matrix of these samples: its
    width is numerical error. ``sampling_bracket`` and ``sampling_interval`` hold the eigenvalue of the mean over all data that
    the samples were drawn from.

    Attributes:
        eigenvalues: float64 (k,), of the sample, in the order of the solution.
        numerical_interval: (k, 2), as ``solution.intervals``.
        sampling_bracket: (k, 2), holds the population's eigenvalue whatever the gaps.
        estimate: (k,), of the population's eigenvalues, corrected for the bias of the sample.
        sampling_interval: (k, 2), about the estimate; meant to be used where ``valid``.
        valid: (k,) booleans: the eigenvalue is separated from its neighbours and determined to better than a factor of 10.
        bias: (k,), what was subtracted from the sample's eigenvalues.
        spread: (k,), standard error of the sample's eigenvalues.
        close: groups of eigenvalues that the sample does not tell apart.
        sum_bracket: (k, 2), of the sum of the pairs of the same end up to this one.
        overlap_of_halves: (k,), of the eigenspaces of two halves of the samples, of the same end up to this pair.
        order: of the pairs, see :data:`.ordering.ORDERS`.
        level: probability that an interval holds its number.
        samples: number of samples, or of batches.
        unit: "samples" or "batches".
        folds: that they were dealt to.
        observations: independent ones: groups of samples where ``groups`` was passed.
        duplicates: samples that are equal to an earlier one.
        products: that it cost, with all of the data.
        overlaps: with masks, by their names.
    """

    eigenvalues: Tensor
    numerical_interval: Tensor
    sampling_bracket: Tensor
    estimate: Tensor
    sampling_interval: Tensor
    valid: Tensor
    bias: Tensor
    spread: Tensor
    close: Sequence[Group]
    sum_bracket: Tensor
    overlap_of_halves: Tensor
    order: str
    level: float
    samples: int
    unit: str
    folds: int
    observations: int
    duplicates: int = 0
    products: float = field(default=0.0, compare=False)
    overlaps: Mapping[str, OverlapCurve] = field(default_factory=dict)

    _instead: ClassVar[Mapping[str, str]] = {
        "intervals": "found.sampling_interval where found.valid, found.sampling_bracket for every eigenvalue",
        "interval": "found.sampling_interval where found.valid, found.sampling_bracket for every eigenvalue",
        "ci": "found.sampling_interval where found.valid, found.sampling_bracket for every eigenvalue",
        "bracket": "found.sampling_bracket",
        "lower": "found.sampling_bracket[:, 0], or found.sampling_interval[:, 0]",
        "upper": "found.sampling_bracket[:, 1], or found.sampling_interval[:, 1]",
        "stderr": "found.spread",
        "std": "found.spread",
        "value": "found.estimate",
        "values": "found.estimate",
        "overlap": "found.overlap_of_halves",
        "groups": "found.close",
        "to_dataframe": "found.to_pandas()",
    }

    def __len__(self) -> int:
        return len(self.eigenvalues)

    @property
    def best_interval(self) -> Tensor:
        """(k, 2): the sampling interval where it is valid, else the bracket."""
        return torch.where(self.valid[:, None], self.sampling_interval, self.sampling_bracket)

    @checked
    def beside(self, solution: Solution) -> Solution:
        """Return the solution with the sampling intervals beside its numerical ones, as its ``sampling_intervals``.

        They are :attr:`best_interval`; printed, drawn, saved and cut with the solution.

        Raises:
            InvalidArgument: a solution with other eigenvalues.

        >>> import curvscope as cs
        >>> _ = torch.manual_seed(0)
        >>> data = [(torch.randn(100, 2), torch.randn(100, 1))]
        >>> H = cs.hessian(torch.nn.Linear(2, 1, bias=False), torch.nn.MSELoss(), data)
        >>> solution = cs.eigsh(H, k=2)
        >>> solution = cs.population(H, solution).beside(solution)
        >>> solution.intervals.shape == solution.sampling_intervals.shape
        True
        """
        if len(self) != solution.k or not torch.equal(self.eigenvalues, solution.eigenvalues):
            raise InvalidArgument("this solution has other eigenvalues than the one that was passed to cs.population")
        return replace(solution, sampling_intervals=self.best_interval)

    def determined(self, factor: float = 2.0) -> int:
        """Number of leading eigenvalues determined to a factor: the best interval reaches over at most its square.

        >>> import curvscope as cs
        >>> _ = torch.manual_seed(0)
        >>> data = [(torch.randn(100, 2), torch.randn(100, 1))]
        >>> H = cs.hessian(torch.nn.Linear(2, 1, bias=False), torch.nn.MSELoss(), data)
        >>> cs.population(H, cs.eigsh(H, k=2)).determined(10.0)
        2
        """
        if factor <= 1:
            raise InvalidArgument(f"factor={factor}: choose a number above 1, such as 2")
        magnitudes = self.best_interval * self.eigenvalues.sign()[:, None]
        low, high = magnitudes.min(1).values, magnitudes.max(1).values
        inside = (low > 0) & (high <= factor**2 * low)
        missed = (~inside).nonzero()
        return int(missed[0]) if len(missed) else len(self)

    @checked
    def samples_needed(self, i: int, factor: float = 2.0) -> float:
        """About how many samples would determine eigenvalue ``i`` (from 0) to a factor; infinite where the sample cannot tell.

        The standard error falls as 1 / sqrt(n), bias and correction as 1 / n. A guess to about a factor of two, for planning.
        """
        if not -len(self) <= i < len(self):
            raise InvalidArgument(f"there is no eigenvalue {i}: there are {len(self)}, counted from 0")
        if factor <= 1:
            raise InvalidArgument(f"factor={factor}: choose a number above 1, such as 2")
        quantile = student_quantile((1 + self.level) / 2, self.folds - 1)
        value, bias = abs(float(self.estimate[i])), float(self.bias[i])
        allowed = (1 - 1 / factor) * value
        spread = quantile * float(self.spread[i])
        if not allowed or abs(bias) > abs(float(self.eigenvalues[i])):
            return math.inf
        # (spread^2 / m) + (bias / m)^2 = allowed^2 for m times the samples
        more = (spread**2 + math.sqrt(spread**4 + 4 * (allowed * bias) ** 2)) / (2 * allowed**2)
        return self.samples * more if more <= MOST_EXTRAPOLATED else math.inf

    def summary(self, factor: float = 2.0) -> str:
        """Say how many eigenvalues the samples determine, and what the last one would need, in words."""
        known, name = self.determined(factor), f"a factor of {'two' if factor == 2 else f'{factor:g}'}"
        counted = WORDS[known] if known < len(WORDS) else str(known)
        told = f"{self.samples} {self.unit} determine {counted} eigenvalue{'' if known == 1 else 's'} to {name}"
        if known == len(self):
            return f"{told}, all of those computed."
        needed = self.samples_needed(len(self) - 1, factor)
        last = f"for eigenvalue {len(self)}"
        if math.isinf(needed):
            return f"{told}; {last} they are too few to say how many are needed."
        if needed <= self.samples:  # its standard error is small enough, but no interval of a single eigenvalue is valid
            return f"{told}; eigenvalue {len(self)} has close neighbours, so that its bracket alone holds."
        return f"{told}; {last} about {rounded(needed)} are needed."

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        columns = {name: numbers.tolist() for name, numbers in self._columns().items()}
        groups = [
            {"members": [place + 1 for place in group.members], "mean": group.mean, "estimate": group.estimate}
            | {"sampling_lower": group.lower, "sampling_upper": group.upper}
            for group in self.close
        ]
        facts = ("order", "level", "samples", "unit", "folds", "observations", "duplicates", "products")
        curves = {name: curve.to_dict() for name, curve in self.overlaps.items()}
        return {
            **columns,
            "close": groups,
            **({"overlaps": curves} if curves else {}),
            **{name: getattr(self, name) for name in facts},
            "summary": self.summary(),
        }

    def to_pandas(self) -> Any:
        """A data frame with a row for each eigenvalue; needs pandas."""
        return frame({name: numbers.tolist() for name, numbers in self._columns().items()})

    def _columns(self) -> dict[str, Tensor]:
        return {
            "eigenvalue": self.eigenvalues,
            "numerical_lower": self.numerical_interval[:, 0],
            "numerical_upper": self.numerical_interval[:, 1],
            "bracket_lower": self.sampling_bracket[:, 0],
            "bracket_upper": self.sampling_bracket[:, 1],
            "estimate": self.estimate,
            "sampling_lower": self.sampling_interval[:, 0],
            "sampling_upper": self.sampling_interval[:, 1],
            "valid": self.valid,
            "overlap_of_halves": self.overlap_of_halves,
        }

    @checked
    def plot(self, ax: Any = None, *, log: bool = False) -> Any:
        """Draw both kinds of intervals into matplotlib axes (default: pyplot's current ones); returns the axes.

        Args:
            ax: axes.
            log: whether magnitudes are drawn, on a logarithmic axis.
        """
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.gca()
        index = np.arange(1, len(self) + 1)
        sign = self.eigenvalues.sign()[:, None] if log else 1.0
        ends = [(sign * part).sort(1).values.numpy() for part in (self.sampling_bracket, self.sampling_interval)]
        floor = float(self.eigenvalues.abs().min()) / 100 if log else -np.inf
        ax.vlines(index, np.maximum(ends[0][:, 0], floor), ends[0][:, 1], color="0.75", linewidth=5, label="sampling bracket")
        valid = self.valid.numpy()
        low, high = np.maximum(ends[1][:, 0], floor)[valid], ends[1][:, 1][valid]
        ax.vlines(index[valid], low, high, color="C0", linewidth=2, label="sampling interval")
        values = self.eigenvalues.abs() if log else self.eigenvalues
        reach = (self.numerical_interval[:, 1] - self.numerical_interval[:, 0]).clamp(min=0) / 2
        ax.errorbar(index, values, yerr=reach, fmt="ko", markersize=3, linewidth=1, label="sample, numerical interval")
        ax.set(xlabel="i", ylabel="|eigenvalue|" if log else "eigenvalue", yscale="log" if log else "linear")
        ax.legend()
        return ax

    def __str__(self) -> str:
        """A table that a person reads: the sample's eigenvalues beside the population's intervals, and the answer in words."""
        return self.text()

    def text(self, factor: float = 2.0) -> str:
        """The same, with the answer for another factor."""
        percent = f"{100 * self.level:g} %"
        rows = [
            f"Eigenvalues of the population, from {self.samples} {self.unit} ({self.folds} folds, intervals of {percent})",
            "",
            f"{'':>4}  {'this sample':>12} {'':>10}  {'population':>12}",
            f"{'i':>4}  {'eigenvalue':>12} {'+- numer.':>10}  {'estimate':>12}  {'sampling interval':<24}  sampling bracket",
        ]
        for i in range(min(len(self), SHOWN)):
            numerical = float(self.numerical_interval[i, 1] - self.numerical_interval[i, 0]) / 2
            estimate = f"{float(self.estimate[i]):>12.5g}" if self.valid[i] else f"{'':>12}"
            interval = _ends(self.sampling_interval[i]) if self.valid[i] else self._group_of(i)
            row = f"{i + 1:>4}  {float(self.eigenvalues[i]):>12.5g} {numerical:>10.1e}  {estimate}  {interval:<24}"
            rows.append(f"{row}  {_ends(self.sampling_bracket[i])}")
        rows += [f"{'...':>4}"] if len(self) > SHOWN else []
        rows += ["", *map(str, self.close)] if self.close else [""]
        curves = [line for name, curve in self.overlaps.items() for line in _overlap_rows(name, curve)]
        return "\n".join([*rows, self.summary(factor), *curves, *self._notes(), f"{self.products:.0f} products"])

    def _group_of(self, i: int) -> str:
        if any(i in group.members for group in self.close):
            return "in a close group"
        known = bool((self.sampling_interval[i] * self.eigenvalues[i] > 0).all())
        return "close neighbours" if known else "not determined"

    def _notes(self) -> list[str]:
        notes = [
            "Assumed: samples that the parameters do not depend on, as held-out data. For training data the population is one "
            "that the training set is a random part of, at fixed parameters."
        ]
        if self.observations < self.samples:
            notes.append(f"{self.observations} groups of {self.unit} count as independent observations.")
        elif self.duplicates:
            notes.append(
                f"{self.duplicates} of the {self.samples} {self.unit} are equal to an earlier one: intervals are too narrow; "
                "leave them out, or pass groups="
            )
        return notes


def _overlap_rows(name: str, curve: OverlapCurve) -> list[str]:
    """Rows for a few k of an overlap with a mask, and for which k it is above chance in the population."""
    assert curve.sampling_lower is not None, "of overlap_interval"
    assert curve.sampling_upper is not None, "of overlap_interval"
    rows = ["", f"Overlap with {name}", f"{'k':>4}  {'this sample':>12}  {'chance':>9}  population, sampling interval"]
    for k in [*[k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500) if k < len(curve.k)], len(curve.k)]:
        ends = float(curve.sampling_lower[k - 1]), float(curve.sampling_upper[k - 1])
        row = f"{k:>4}  {float(curve.value[k - 1]):>12.4g}  {float(curve.chance[k - 1]):>9.3g}  [{ends[0]:.4g}, {ends[1]:.4g}]"
        rows.append(row)
    above = int((curve.sampling_lower > curve.chance).sum())
    return [*rows, f"Above chance in the population, as far as these samples tell, for {above} of {len(curve.k)} k.", ""]


def _ends(interval: Tensor) -> str:
    return f"[{float(interval[0]):.4g}, {float(interval[1]):.4g}]"


def rounded(number: float) -> str:
    """Two digits, with a comma between thousands.

    >>> rounded(1234.5)
    '1,200'
    """
    digits = max(0, math.floor(math.log10(number)) - 1) if number >= 1 else 0
    return f"{int(round(number, -digits)):,}"
