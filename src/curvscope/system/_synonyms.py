"""What users expect of results and names: hints for names of other libraries, numbers that are arrays, displays."""

from __future__ import annotations

import difflib
import html
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

ARRAY = (
    *("mean", "sum", "max", "min", "std", "median", "argmax", "argmin", "cumsum", "abs", "log", "log10"),
    *("numpy", "tolist", "shape", "dtype", "ndim", "double", "cpu"),
)
"""Attributes of tensors that results of :class:`Numbers` have too: those of their values."""


def missing_attribute(owner: str, name: str, known: Iterable[str], instead: Mapping[str, str]) -> str:
    """Return the message for an attribute that is not there: what to write, or the nearest name.

    >>> missing_attribute("Solution", "eigvals", ["eigenvalues"], {"eigvals": "solution.eigenvalues"})
    "Solution has no 'eigvals': use solution.eigenvalues"
    >>> missing_attribute("Solution", "eigenvalue", ["eigenvalues"], {})
    "Solution has no 'eigenvalue': did you mean 'eigenvalues'?"
    """
    text = f"{owner} has no {name!r}"
    if name in instead:
        return f"{text}: use {instead[name]}"
    near = difflib.get_close_matches(name, [other for other in known if not other.startswith("_")], 1, 0.75)
    return f"{text}: did you mean {near[0]!r}?" if near else text


class Hinted:
    """An object whose missing attributes say what to write: ``_instead`` maps names of other libraries to expressions."""

    _instead: ClassVar[Mapping[str, str]] = {}

    def __getattr__(self, name: str) -> Any:
        """Explain a name that does not exist; called only where the usual look-up failed."""
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        if isinstance(self, Numbers) and name in ARRAY:
            return getattr(self.value, name)
        if name not in type(self)._instead and isinstance(self, Numbers) and hasattr(Tensor, name):
            raise AttributeError(f"{type(self).__name__} has no {name!r}: use .value.{name}, of its numbers")
        text = missing_attribute(
            type(self).__name__, name, [*dir(type(self)), *getattr(self, "__dataclass_fields__", ())], type(self)._instead
        )
        raise AttributeError(text)


class Numbers:
    """A result that is read as the tensor ``value``: its length, entries, arithmetic, mean, and NumPy array."""

    value: Tensor

    @property
    def values(self) -> Tensor:
        """Short for ``value``: the word for the numbers of every curve and density."""
        return self.value

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

    def __add__(self, other: Any) -> Tensor:
        """``value + other``, as all arithmetic and comparisons: a tensor without errors or chance."""
        return self.value + _numbers(other)

    def __radd__(self, other: Any) -> Tensor:
        return _numbers(other) + self.value

    def __sub__(self, other: Any) -> Tensor:
        return self.value - _numbers(other)

    def __rsub__(self, other: Any) -> Tensor:
        return _numbers(other) - self.value

    def __mul__(self, other: Any) -> Tensor:
        return self.value * _numbers(other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Tensor:
        return self.value / _numbers(other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return _numbers(other) / self.value

    def __neg__(self) -> Tensor:
        return -self.value

    def __lt__(self, other: Any) -> Tensor:
        return self.value < _numbers(other)

    def __le__(self, other: Any) -> Tensor:
        return self.value <= _numbers(other)

    def __gt__(self, other: Any) -> Tensor:
        return self.value > _numbers(other)

    def __ge__(self, other: Any) -> Tensor:
        return self.value >= _numbers(other)


def _numbers(other: Any) -> Tensor:
    """The other side of arithmetic: the values of a result, tensors and numbers (which stand for tensors) as they are."""
    found: Tensor = other.value if isinstance(other, Numbers) else other
    return found


class Displayed:
    """A result that notebooks show as its text, of one screen."""

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"
