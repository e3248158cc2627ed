"""A number that was estimated, and how far it may be off."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.store import Saved
from curvscope.system import Displayed, Hinted, Numbers, checked, frame

Z95 = 1.959963984540054
"""Standard errors on each side of a normal estimate that hold the truth with probability 0.95."""


@dataclass(frozen=True, repr=False)
class Estimate(Saved, Displayed, Hinted):
    """An estimated number: it formats, compares and scales as one; ``value, stderr = estimate`` unpacks.

    Products and quotients with exact numbers, and sums with them, carry the standard error along; ``layers`` are left out.

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

    _instead: ClassVar[Mapping[str, str]] = {
        "error": "estimate.stderr",
        "std": "estimate.stderr",
        "std_error": "estimate.stderr",
        "mean": "estimate.value",
        "estimate": "estimate.value",
        "ci": "estimate.interval",
        "confidence_interval": "estimate.interval",
        "by_layer": "estimate.layers",
        "num_products": "estimate.products",
        "samples": "estimate.products",
    }

    @property
    def lower(self) -> float:
        """Lower end of :attr:`interval`."""
        return self.interval[0]

    @property
    def upper(self) -> float:
        """Upper end of :attr:`interval`."""
        return self.interval[1]

    def __float__(self) -> float:
        return self.value

    def item(self) -> float:
        """The value, as of a scalar tensor."""
        return self.value

    def __iter__(self) -> Iterator[float]:
        """(value, stderr), to unpack."""
        yield self.value
        yield self.stderr

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The value as a NumPy scalar array."""
        return np.array(self.value, dtype=dtype)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec) if spec else str(self)

    def __lt__(self, other: Any) -> bool:
        return self.value < float(other)

    def __le__(self, other: Any) -> bool:
        return self.value <= float(other)

    def __gt__(self, other: Any) -> bool:
        return self.value > float(other)

    def __ge__(self, other: Any) -> bool:
        return self.value >= float(other)

    def __abs__(self) -> Estimate:
        return self._scaled(-1.0) if self.value < 0 else self

    def __neg__(self) -> Estimate:
        return self._scaled(-1.0)

    def __mul__(self, factor: Any) -> Estimate:
        """Multiply by an exact number."""
        return self._scaled(float(factor)) if _is_number(factor) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Any:
        """Divide by an exact number; by another estimate, the quotient of the values, a number without an error."""
        if isinstance(divisor, Estimate):
            return self.value / divisor.value
        return Estimate(self.value / float(divisor), self.stderr / abs(float(divisor)), self.products, degrees=self.degrees)

    def __rtruediv__(self, number: Any) -> float:
        """Divide an exact number by the value; a number without an error."""
        return float(number) / self.value

    def __add__(self, number: Any) -> Any:
        """Add an exact number; of another estimate the value, with both errors as if they were independent."""
        if isinstance(number, Estimate):
            stderr, degrees = math.hypot(self.stderr, number.stderr), min(self.degrees, number.degrees)
            return Estimate(self.value + number.value, stderr, self.products + number.products, degrees=degrees)
        if not _is_number(number):
            return NotImplemented
        return Estimate(self.value + float(number), self.stderr, self.products, degrees=self.degrees)

    __radd__ = __add__

    def __sub__(self, number: Any) -> Any:
        """Subtract; see addition."""
        return self + (-number) if isinstance(number, Estimate) or _is_number(number) else NotImplemented

    def __rsub__(self, number: Any) -> Any:
        return (-self) + number

    def _scaled(self, factor: float) -> Estimate:
        return Estimate(factor * self.value, abs(factor) * self.stderr, self.products, degrees=self.degrees)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        plain = {
            "value": self.value,
            "stderr": self.stderr,
            "lower": self.lower,
            "upper": self.upper,
            "products": self.products,
        }
        return plain | ({"layers": {name: part.to_dict() for name, part in self.layers.items()}} if self.layers else {})

    def to_pandas(self) -> Any:
        """A data frame of value, stderr, lower and upper: a row for the whole, "", and one for each layer; needs pandas."""
        rows = {"": self, **self.layers}
        names = ("value", "stderr", "lower", "upper")
        return frame({name: [getattr(part, name) for part in rows.values()] for name in names}, list(rows))

    def __round__(self, digits: int | None = None) -> float:
        """The value, rounded."""
        return round(self.value, digits)

    def __int__(self) -> int:
        """The value, cut to a whole number."""
        return int(self.value)

    def __str__(self) -> str:
        return f"{self.value:.6g} +- {self.stderr:.2g} ({self.products} products)"


@dataclass(frozen=True, repr=False)
class DiagonalEstimate(Saved, Numbers, Displayed, Hinted):
    """An estimated diagonal.

    Attributes:
        value: float64 (D,).
        stderr: float64 (D,), of each entry.
        products: that it cost.
        layout: shape of each parameter tensor by name, in the diagonal's order; empty for operators without names.

    >>> import curvscope as cs
    >>> cs.diagonal(torch.diag(torch.tensor([3.0, 1.0]))).value.tolist()
    [3.0, 1.0]
    """

    value: Tensor
    stderr: Tensor
    products: int
    layout: Mapping[str, Sequence[int]] = field(default_factory=dict, compare=False)

    _instead: ClassVar[Mapping[str, str]] = {
        "diagonal": "estimate.value",
        "error": "estimate.stderr",
        "layers": "estimate.by_layer()",
        "trace": "cs.trace(H)",
    }

    @checked
    def unflatten(self) -> dict[str, Tensor]:
        """The diagonal by parameter name, in the parameters' shapes.

        Raises:
            InvalidArgument: the operator was not built from a model.
        """
        if not self.layout:
            raise InvalidArgument("this operator has no named parameters: use estimate.value, (D,)")
        pieces = self.value.split([math.prod(shape) for shape in self.layout.values()])
        return {name: piece.reshape(*shape) for (name, shape), piece in zip(self.layout.items(), pieces, strict=True)}

    def by_layer(self) -> dict[str, float]:
        """The sum of each parameter tensor's entries, by name."""
        return {name: float(part.sum()) for name, part in self.unflatten().items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {"value": self.value.tolist(), "stderr": self.stderr.tolist(), "products": self.products}

    def to_pandas(self) -> Any:
        """A data frame of value and stderr with a row for each entry, and its parameter's name where known; needs pandas."""
        counts = {name: math.prod(shape) for name, shape in self.layout.items()}
        named = {"parameter": [name for name, count in counts.items() for _ in range(count)]} if counts else {}
        return frame(named | {"value": self.value.tolist(), "stderr": self.stderr.tolist()})

    def __str__(self) -> str:
        total, largest = float(self.value.sum()), float(self.value.abs().max())
        numbers = f"sum {total:.6g}, largest magnitude {largest:.6g}"
        return f"diagonal of {len(self.value)} entries, {numbers} ({self.products} products)"


@dataclass(frozen=True, repr=False)
class NormBound(Saved, Displayed, Hinted):
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

    _instead: ClassVar[Mapping[str, str]] = {
        "interval": "norm.lower and norm.upper",
        "error": "norm.stderr, that is upper - value",
        "norm": "norm.value",
        "num_products": "norm.products",
    }

    @property
    def stderr(self) -> float:
        """Upper - value: there is no scatter to tell a standard error from, the norm lies between the two."""
        return self.upper - self.value

    @property
    def lower(self) -> float:
        """The same as ``value``, which the norm is at least."""
        return self.value

    def __float__(self) -> float:
        return self.value

    def item(self) -> float:
        """The value, as of a scalar tensor."""
        return self.value

    def __iter__(self) -> Iterator[float]:
        """(value, upper), to unpack."""
        yield self.value
        yield self.upper

    def __format__(self, spec: str) -> str:
        return format(self.value, spec) if spec else str(self)

    def __lt__(self, other: Any) -> bool:
        return self.value < float(other)

    def __gt__(self, other: Any) -> bool:
        return self.value > float(other)

    def __truediv__(self, divisor: Any) -> float:
        """Divide the value; a number without its bound."""
        return self.value / float(divisor)

    def __mul__(self, factor: Any) -> float:
        """Multiply the value; a number without its bound."""
        return self.value * float(factor)

    __rmul__ = __mul__

    def __rtruediv__(self, number: Any) -> float:
        """Divide by the value, as in 2 / norm; a number without its bound."""
        return float(number) / self.value

    def __le__(self, other: Any) -> bool:
        return self.value <= float(other)

    def __ge__(self, other: Any) -> bool:
        return self.value >= float(other)

    def __round__(self, digits: int | None = None) -> float:
        """The value, rounded."""
        return round(self.value, digits)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The value as a NumPy scalar array."""
        return np.array(self.value, dtype=dtype)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {"value": self.value, "upper": self.upper, "failure": self.failure, "products": self.products}

    def to_pandas(self) -> Any:
        """A data frame of one row; needs pandas."""
        return frame({name: [number] for name, number in self.to_dict().items()})

    def __str__(self) -> str:
        return f"in [{self.value:.6g}, {self.upper:.6g}] ({self.products} products)"


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) or (getattr(value, "ndim", None) == 0)


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
