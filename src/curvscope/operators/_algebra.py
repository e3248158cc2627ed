"""Sums, multiples, squares and principal submatrices of operators: matrices again, known by their products."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators._identity import combined
from curvscope.operators._parameters import ParameterFilter, Parameters, matching
from curvscope.operators._places import is_index, places_of
from curvscope.operators._rank import RankBound, of_sum
from curvscope.operators._scipy_view import to_scipy
from curvscope.operators.base import Operator
from curvscope.operators.fingerprint import fingerprint

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

    from curvscope.operators.collective import Processes


class Arithmetic(Operator):
    """An operator with arithmetic.

    ``2 * A``, ``A / 2``, ``-A``, ``A + B``, ``A - B``, ``A @ B``, :meth:`shift`, :meth:`square` and :meth:`submatrix` give
    operators whose products are computed from those of A and B; nothing is formed. :meth:`to_scipy` hands A to SciPy.
    """

    _at_places: ClassVar[Callable[[Arithmetic, Tensor], Arithmetic]]
    """Rows and columns at places; set by :mod:`.composition`, whose results have this arithmetic themselves."""

    def without_assumption(self) -> Arithmetic:
        """See :meth:`.Operator.without_assumption`."""
        return self

    def __mul__(self, factor: float) -> Sum:
        """A times a real number."""
        if isinstance(factor, Tensor) and factor.ndim == 0 and not factor.is_complex():
            factor = float(factor)
        if isinstance(factor, bool) or not isinstance(factor, Real):
            return NotImplemented
        return Sum(((float(factor), self),))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Sum:
        """A divided by a real number."""
        if isinstance(divisor, Tensor) and divisor.ndim == 0:
            divisor = float(divisor)
        if not isinstance(divisor, Real):
            return NotImplemented
        return self * (1.0 / float(divisor))

    def __pow__(self, power: int) -> Square:
        """A @ A, for the power 2."""
        return self.square() if power == 2 else NotImplemented

    def __neg__(self) -> Sum:
        """Minus A."""
        return self * -1.0

    _dense: ClassVar[Callable[[Tensor], Arithmetic]]
    """A dense matrix as an operator; set by :mod:`.interop`."""

    def _summand(self, other: Any) -> Arithmetic | None:
        """Another operator, or a dense matrix in this one's dtype; None: neither."""
        if isinstance(other, Arithmetic):
            return other
        if isinstance(other, np.ndarray) and other.ndim == 2:
            other = torch.from_numpy(other)
        if isinstance(other, Tensor) and other.ndim == 2:
            return type(self)._dense(other.to(self.device, self.dtype))
        return None

    def __add__(self, other: Any) -> Sum:
        """A + B, for an operator or a dense matrix B.

        Raises:
            InvalidType: a number, which is no matrix.
        """
        refuse_number(other)
        summand = self._summand(other)
        return NotImplemented if summand is None else Sum(((1.0, self), (1.0, summand)))

    def __radd__(self, other: Any) -> Arithmetic:
        """B + A; 0 + A is A, with which ``sum`` begins."""
        return self if isinstance(other, Real) and not other else self + other

    def __sub__(self, other: Any) -> Sum:
        """A - B, for an operator or a dense matrix B."""
        refuse_number(other)
        summand = self._summand(other)
        return NotImplemented if summand is None else Sum(((1.0, self), (-1.0, summand)))

    def shift(self, number: float) -> Sum:
        """A + number * I."""
        return Sum(((1.0, self),), shift=float(number))

    def square(self) -> Square:
        """A @ A; two products for one."""
        return Square(self)

    def submatrix(self, which: Any) -> Arithmetic:
        """The rows and columns at chosen places, as an operator; nothing is formed.

        Args:
            which: (n,) integers, each place once and in any order; a mask, (D,) booleans or a :class:`.Mask` such as
                ``ranking.first(k)``; on named parameters also masks by name, or names: a glob, a list of globs, a pattern, a
                predicate on names.

        Its products cost as much as those of A; ``params=`` of :func:`.curvature.hessian` gives the block of whole tensors for
        less.

        Raises:
            InvalidArgument: nothing is chosen, or a place that is not there. InvalidType: no index, mask or filter.
        """
        if is_index(which):
            return type(self)._at_places(self, places_of(which, self))
        if not hasattr(self, "parameters"):
            raise InvalidArgument(f"{which!r} names parameters, which this operator does not know: pass places or a mask")
        return Submatrix(self, which)

    def to_scipy(self) -> LinearOperator:
        """A SciPy ``LinearOperator`` on NumPy arrays on the CPU; needs SciPy.

        Raises:
            MissingExtra: SciPy is not installed.
        """
        return to_scipy(self)


class Composable(Arithmetic):
    """A Hermitian operator on named parameters, with arithmetic."""

    hermitian = True
    needed_again = "the same parameters, data and loss"

    @property
    @abstractmethod
    def parameters(self) -> Parameters:
        """Names, shapes and places of the D parameters."""


def parameters_of(*operators: Operator) -> Parameters:
    """Return the parameters of the first operator that has any.

    Raises:
        AttributeError: none has.
    """
    named = next((operator for operator in operators if hasattr(operator, "parameters")), operators[0])
    found: Parameters = cast(Any, named).parameters  # not every operator has them
    return found


class Sum(Composable):
    """sum_i c_i A_i + shift * I for operators of one shape, dtype and device.

    ``terms`` holds the (factor, operator) pairs and ``offset`` the shift.
    """

    _instead: ClassVar[Mapping[str, str]] = {
        **Composable._instead,
        **{
            name: f"H.terms[0][1].{name}{call}, of the first summand"
            for name, call in {"gradient": "()", "loss": "()", "values": "()", "move": "()", "objective": ""}.items()
        },
        "damping": "H.offset",
    }

    terms: tuple[tuple[float, Arithmetic], ...]
    offset: float

    def __init__(self, terms: tuple[tuple[float, Arithmetic], ...], *, shift: float = 0.0) -> None:
        flat: list[tuple[float, Arithmetic]] = []
        for factor, operator in terms:
            if isinstance(operator, Sum):
                flat += [(factor * inner, term) for inner, term in operator.terms]
                shift += factor * operator.offset
            else:
                flat.append((factor, operator))
        first = flat[0][1]
        for _, operator in flat[1:]:
            ours, theirs = ((o.shape, o.dtype, o.device) for o in (first, operator))
            if ours != theirs:
                raise InvalidArgument(f"cannot add {operator!r} to {first!r}: shape, dtype and device must agree")
        named = [operator.parameters for _, operator in flat if hasattr(operator, "parameters")]
        if any(parameters != named[0] for parameters in named):
            raise InvalidArgument("cannot add operators on different parameters: build both with the same params=...")
        self.terms, self.offset = tuple(flat), shift
        self.shape, self.dtype, self.device = first.shape, first.dtype, first.device
        if shift:
            _check_square(first)
        self.hermitian = all(operator.hermitian for _, operator in flat)
        self.assumed_hermitian = any(operator.assumed_hermitian for _, operator in flat)

    @property
    def parameters(self) -> Parameters:
        """Parameters of the summands; an AttributeError where none has any."""
        return parameters_of(*(operator for _, operator in self.terms))

    @property
    def process_group(self) -> Processes | None:
        """That of the first summand that has one."""
        return next((found for _, operator in self.terms if (found := operator.process_group) is not None), None)

    @property
    def rounding(self) -> float:
        """The largest of the summands'."""
        return max(operator.rounding for _, operator in self.terms)

    @property
    def semidefinite(self) -> bool:
        """True if all summands are, with factors and a shift that are not negative."""
        return self.offset >= 0 and all(factor >= 0 and operator.semidefinite for factor, operator in self.terms)

    def view(self, *, memory: int | None = None, strategy_report: Mapping[str, Any] | None = None) -> Sum:
        """See :meth:`.Capabilities.view`; the summands share the memory, as what they keep lies there together."""
        share = None if memory is None else max(1, memory // len(self.terms))
        return self._view_of(terms=tuple((factor, operator.view(memory=share)) for factor, operator in self.terms))

    def _apply(self, block: Tensor) -> Tensor:
        total = block * self.offset if self.offset else block.new_zeros(self.shape[0], block.shape[1])
        for factor, operator in self.terms:
            total.add_(operator._apply(block), alpha=factor)
        return total

    def rank_bound(self) -> RankBound | None:
        """See :meth:`.Operator.rank_bound`."""
        return None if self.offset else of_sum([operator.rank_bound() for _, operator in self.terms])

    def without_assumption(self) -> Sum:
        """See :meth:`.Operator.without_assumption`."""
        if not self.assumed_hermitian:
            return self
        return Sum(tuple((factor, operator.without_assumption()) for factor, operator in self.terms), shift=self.offset)

    def _apply_adjoint(self, block: Tensor) -> Tensor:
        rows = self.shape[1]
        total = block * self.offset if self.offset else block.new_zeros(rows, block.shape[1])
        for factor, operator in self.terms:
            total.add_(operator._apply_adjoint(block), alpha=factor)
        return total

    def _fingerprint(self) -> str:
        return fingerprint("sum", self.offset, [(factor, operator.fingerprint) for factor, operator in self.terms])

    def _identity(self) -> dict[str, Any]:
        return combined(
            "Sum", [term for _, term in self.terms], offset=self.offset, factors=[factor for factor, _ in self.terms]
        )


class Square(Composable):
    """A @ A."""

    def __init__(self, inner: Arithmetic) -> None:
        _check_square(inner)
        self.inner = inner
        self.shape, self.dtype, self.device = inner.shape, inner.dtype, inner.device
        self.hermitian, self.assumed_hermitian = inner.hermitian, inner.assumed_hermitian

    @property
    def parameters(self) -> Parameters:
        """Parameters of A; an AttributeError where it has none."""
        return parameters_of(self.inner)

    @property
    def process_group(self) -> Processes | None:
        """That of A."""
        return self.inner.process_group

    @property
    def rounding(self) -> float:
        """Rounding of A."""
        return self.inner.rounding

    @property
    def semidefinite(self) -> bool:
        """True if A is Hermitian."""
        return self.hermitian

    def view(self, *, memory: int | None = None, strategy_report: Mapping[str, Any] | None = None) -> Square:
        """See :meth:`.Capabilities.view`; of A."""
        return self._view_of(inner=self.inner.view(memory=memory))

    def _apply(self, block: Tensor) -> Tensor:
        return self.inner._apply(self.inner._apply(block))

    def rank_bound(self) -> RankBound | None:
        """See :meth:`.Operator.rank_bound`."""
        return self.inner.rank_bound()

    def without_assumption(self) -> Square:
        """See :meth:`.Operator.without_assumption`."""
        return Square(self.inner.without_assumption()) if self.assumed_hermitian else self

    def _apply_adjoint(self, block: Tensor) -> Tensor:
        return self.inner._apply_adjoint(self.inner._apply_adjoint(block))

    def _fingerprint(self) -> str:
        return fingerprint("square", self.inner.fingerprint)

    def _identity(self) -> dict[str, Any]:
        return combined("Square", [self.inner])


class Submatrix(Composable):
    """The rows and columns of A that belong to chosen parameters."""

    def __init__(self, inner: Arithmetic, params: ParameterFilter) -> None:
        whole: Parameters = inner.parameters
        names = matching(whole.names, params)
        shapes = dict(zip(whole.names, whole.shapes, strict=True))
        self.inner, self._parameters = inner, Parameters(names, tuple(shapes[name] for name in names))
        self.shape = (self._parameters.size, self._parameters.size)
        self.dtype, self.device, self.hermitian = inner.dtype, inner.device, inner.hermitian
        places = whole.slices
        self._rows = [(places[name], self._parameters.slices[name]) for name in names]

    @property
    def parameters(self) -> Parameters:
        """The chosen ones."""
        return self._parameters

    @property
    def process_group(self) -> Processes | None:
        """That of A."""
        return self.inner.process_group

    @property
    def rounding(self) -> float:
        """Rounding of A."""
        return self.inner.rounding

    @property
    def semidefinite(self) -> bool:
        """True if A is."""
        return self.inner.semidefinite

    def view(self, *, memory: int | None = None, strategy_report: Mapping[str, Any] | None = None) -> Submatrix:
        """See :meth:`.Capabilities.view`; of A."""
        return self._view_of(inner=self.inner.view(memory=memory))

    def _apply(self, block: Tensor) -> Tensor:
        return self._chosen(self.inner._apply(self._wide(block)))

    def _apply_adjoint(self, block: Tensor) -> Tensor:
        return self._chosen(self.inner._apply_adjoint(self._wide(block)))

    def _wide(self, block: Tensor) -> Tensor:
        wide = block.new_zeros(self.inner.shape[1], block.shape[1])
        for outer, own in self._rows:
            wide[outer] = block[own]
        return wide

    def _chosen(self, product: Tensor) -> Tensor:
        return torch.cat([product[outer] for outer, _ in self._rows])

    def _fingerprint(self) -> str:
        return fingerprint("submatrix", self.inner.fingerprint, list(self._parameters.names))

    def _identity(self) -> dict[str, Any]:
        return combined("Submatrix", [self.inner], parameters=fingerprint(list(self._parameters.names)))


def refuse_number(other: Any) -> None:
    """Raise InvalidType for a number as a summand, which would mean one thing to NumPy and another to mathematicians."""
    if isinstance(other, Real):
        raise InvalidType(
            f"a matrix and the number {other}: H.shift({other}) or H + {other} * cs.identity(H) adds a multiple of the identity"
        )


def _check_square(operator: Operator) -> None:
    if operator.shape[0] != operator.shape[1]:
        raise InvalidArgument(f"shift() and square() need a square operator, got {operator!r}")
