"""The trace of the population's matrix: linear in the samples, so that it has no bias and a plain interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.estimators import trace
from curvscope.operators import CurvatureOperator, Unit
from curvscope.sampling._deal import check_measured, dealt
from curvscope.sampling._folded import jackknife_spread
from curvscope.sampling._student import student_quantile
from curvscope.store import Saved
from curvscope.system import Displayed, Hinted, Progress, checked, frame

FEWEST_PRODUCTS = 6
"""That the estimate of one fold needs."""


@dataclass(frozen=True, repr=False)
class PopulationTrace(Saved, Displayed, Hinted):
    """A trace with both kinds of intervals; see :func:`curvscope.population_trace`.

    Attributes:
        value: of the trace, unbiased for the sample and for the population.
        numerical_interval: holds the trace of these samples' matrix: random probes alone.
        sampling_interval: holds that of the population's matrix: samples and probes.
        level: probability that an interval holds its number.
        samples: number of samples, or of batches.
        unit: "samples" or "batches".
        products: that it cost, with all of the data.

    >>> print(PopulationTrace(10.0, (9.9, 10.1), (8.0, 12.0), 0.95, 100, "samples"))
    trace 10: [9.9, 10.1] numerical, [8, 12] over another 100 samples (95 %)
    """

    value: float
    numerical_interval: Sequence[float]
    sampling_interval: Sequence[float]
    level: float
    samples: int
    unit: str
    products: float = field(default=0.0, compare=False)

    _instead: ClassVar[Mapping[str, str]] = {
        "interval": "found.sampling_interval, and found.numerical_interval",
        "stderr": "found.sampling_interval",
        "trace": "found.value",
        "to_dataframe": "found.to_pandas()",
    }

    def __post_init__(self) -> None:
        for name in ("numerical_interval", "sampling_interval"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # a saved one comes back as a list

    def __float__(self) -> float:
        return self.value

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "value": self.value,
            "numerical_lower": self.numerical_interval[0],
            "numerical_upper": self.numerical_interval[1],
            "sampling_lower": self.sampling_interval[0],
            "sampling_upper": self.sampling_interval[1],
            "level": self.level,
            "samples": self.samples,
            "unit": self.unit,
            "products": self.products,
        }

    def to_pandas(self) -> Any:
        """A data frame with one row; needs pandas."""
        return frame({name: [value] for name, value in self.to_dict().items()})

    def __str__(self) -> str:
        numerical, sampled = ("[{:.4g}, {:.4g}]".format(*ends) for ends in (self.numerical_interval, self.sampling_interval))
        text = f"trace {self.value:.4g}: {numerical} numerical, {sampled} over another {self.samples} {self.unit}"
        return f"{text} ({100 * self.level:g} %)"


@checked
def population_trace(
    operator: Any,
    *,
    folds: int = 20,
    max_products: int = 10,
    groups: Sequence[Any] | None = None,
    by: Unit | None = None,
    level: float = 0.95,
    seed: int = 0,
    progress: Progress = None,
) -> PopulationTrace:
    r"""The trace of the population's matrix, with an interval over the choice of the data.

    The trace is linear in the samples, :math:`E \operatorname{tr} H_n = \operatorname{tr} H^*`. It has no bias, and the traces
    of independent folds tell its standard error. Each fold has random probes of its own, so that their scatter holds the error
    of the probes, too.

    Args:
        operator: of all samples, as for :func:`curvscope.population`.
        folds: parts of the samples, dealt at random. At least 4.
        max_products: with each fold, at least 6; D of them make its trace exact.
        groups: a label for each sample, where samples are correlated.
        by: "samples" or "batches"; None: samples where that is possible.
        level: probability that an interval holds its number.
        seed: of the dealing and of the probes.
        progress: see :data:`.progress.Progress`.

    Returns:
        A :class:`.PopulationTrace`; print it.

    Cost: max_products with all of the data. Memory: that of :func:`curvscope.trace`.

    Raises:
        InvalidType: an operator that does not know its samples. InvalidArgument: a loss that sums, too few samples, products
            or folds, a level outside of (0, 1).
    Limits: as for :func:`curvscope.population`; with heavy-tailed samples and few folds the interval holds too seldom.
    Source: Student's interval for a mean of independent traces; jackknife for folds of unequal size (Busing et al. 1999).

    >>> import curvscope as cs
    >>> _ = torch.manual_seed(0)
    >>> data = [(torch.randn(200, 3), torch.randn(200, 1))]
    >>> H = cs.hessian(torch.nn.Linear(3, 1, bias=False), torch.nn.MSELoss(), data)      # 2 E x x' = 2 I
    >>> low, high = population_trace(H).sampling_interval
    >>> low < 6 < high
    True
    """
    check_measured(operator)
    assert isinstance(operator, CurvatureOperator), "of check_measured"
    if not 0 < level < 1:
        raise InvalidArgument(f"level={level}: choose a probability below 1, such as 0.95")
    if max_products < FEWEST_PRODUCTS:
        raise InvalidArgument(f"max_products={max_products}: each fold needs at least {FEWEST_PRODUCTS}")
    shared = dealt(operator, folds, seed, by, groups)
    values, errors, terms, products = [], [], [], 0
    part: CurvatureOperator | None = None
    for fold in range(folds):
        if part is None:
            part = shared.of_folds([fold])
        else:  # what was traced for one fold serves the others
            shared.exchange(part, [fold])
        found = trace(part, max_products=max_products, seed=seed + fold, progress=progress)
        values.append(found.value)
        errors.append(found.stderr)
        terms.append(float(part.objective.total_terms))
        products += found.products
    shares = _numbers(terms) / sum(terms)
    value, without = _mean_and_without(_numbers(values), shares)
    spread = float(jackknife_spread(value[None], without[:, None], shares))
    numerical = float((shares * _numbers(errors)).norm())
    half = student_quantile((1 + level) / 2, folds - 1)
    return PopulationTrace(
        float(value),
        (float(value) - half * numerical, float(value) + half * numerical),
        (float(value) - half * spread, float(value) + half * spread),
        level,
        shared.units.count,
        shared.units.unit,
        products / folds,
    )


def _mean_and_without(values: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """The mean over folds, and the means without each of them."""
    mean = (shares * values).sum()
    return mean, (mean - shares * values) / (1 - shares)


def _numbers(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device="cpu")
