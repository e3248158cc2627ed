"""The contract of everything that can be measured: one fixed matrix, known by its products on blocks."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self, overload

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators._capabilities import Capabilities
from curvscope.operators._conveniences import Conveniences, in_its_form, is_other_form
from curvscope.operators._inference import out_of_inference

if TYPE_CHECKING:
    from curvscope.operators._rank import RankBound
    from curvscope.operators.remote import Recipe

__all__ = ["Operator"]


class Operator(Conveniences, Capabilities, ABC):
    """A fixed m x n matrix, known only through ``A @ X`` on blocks of columns.

    Subclasses set ``shape``, ``dtype``, ``device`` and ``hermitian`` and implement :meth:`_apply` (and
    :meth:`_apply_adjoint` unless Hermitian) for blocks of shape (n, b); everything else is here. What else an operator may
    know of itself (bounded memory, the strategy of its products, its loss) has defaults; see :class:`.Capabilities`.

    Attributes:
        shape: (m, n).
        dtype: of the columns, and of the products.
        device: where the columns must lie.
        hermitian: whether A equals its conjugate transpose.
        assumed_hermitian: whether that was only assumed, so that the first products are looked at; see :mod:`.symmetry`.
        recipe: how other processes can make it; None unless :meth:`.Recipe.build` made it.
        needed_again: what has to be passed again for the same fingerprint, in messages.
        not_finite_advice: where NaN or infinity in a product may come from.

    >>> class Twice(Operator):
    ...     shape, dtype, device, hermitian = (3, 3), torch.float32, torch.device("cpu"), True
    ...     def _apply(self, block):
    ...         return 2 * block
    ...     def _fingerprint(self):
    ...         return "twice"
    >>> (Twice() @ torch.ones(3)).tolist()
    [2.0, 2.0, 2.0]
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device
    hermitian: bool
    assumed_hermitian: bool = False
    recipe: Recipe | None = None
    _original: Operator | None = None
    """Of a view: the operator that it is a view of."""
    if TYPE_CHECKING:  # a value or a property, as a subclass likes

        @property
        def not_finite_advice(self) -> str:
            """See above."""
            ...

    else:
        not_finite_advice = "look at the operator's entries, and at what it does with large ones"
    _composed: ClassVar[Callable[[Operator, Operator], Operator]]
    """A @ B; set by :mod:`.composition`, whose results have the algebra that is built on this class."""
    needed_again: str = "the same object or matrix (another wrapper of it counts as another operator)"

    def _view_of(self, **parts: Any) -> Self:
        """Return a copy with views in place of the operators that this one is made of."""
        made = copy.copy(self)
        made._original = self._original or self
        made.__dict__.update(parts)
        return made

    @property
    def rounding(self) -> float:
        """Machine epsilon of the arithmetic that products are computed in: that of ``dtype``, unless it is a coarser one."""
        return torch.finfo(self.dtype).eps

    @abstractmethod
    def _apply(self, block: Tensor) -> Tensor:
        """A @ block for a (n, b) block that was checked already; the block must not be changed."""

    def _apply_adjoint(self, block: Tensor) -> Tensor:
        """A* @ block for a (m, b) block."""
        if self.hermitian:
            return self._apply(block)
        raise InvalidArgument(
            f"{type(self).__name__} is not Hermitian and gives no products with its adjoint: define _apply_adjoint"
        )

    def rank_bound(self) -> RankBound | None:
        """Return an upper bound for the rank that the structure of the matrix gives; None where there is none."""
        return None

    def without_assumption(self) -> Operator:
        """This matrix where nothing is assumed of its symmetry, for work that multiplies with the adjoint as well."""
        return self

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of everything that determines the matrix; see :func:`.fingerprint.fingerprint`."""
        return self._fingerprint() if self._original is None else self._original.fingerprint

    @abstractmethod
    def _fingerprint(self) -> str: ...

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Facts and values on fixed vectors that tell this matrix from others, see :mod:`.operators.identity`.

        Empty where the fingerprint says everything. Cost: for curvature operators two products with the first mini-batch and
        one evaluation of its loss; for those of other libraries one product; computed once.
        """
        return self._identity() if self._original is None else self._original.identity

    def _identity(self) -> dict[str, Any]:
        return {}

    __array_ufunc__ = None  # arrays of NumPy leave ``array @ A`` to us

    @overload
    def __matmul__(self, block: Tensor) -> Tensor: ...

    @overload
    def __matmul__(self, block: Operator) -> Operator: ...

    @overload
    def __matmul__(self, block: Any) -> Any: ...

    def __matmul__(self, block: Any) -> Any:
        """The product with one vector (n,) or a block of them (n, b), of the same form; with an operator, one more operator.

        Arrays, tensors of another precision, tensors by parameter name or in a list are multiplied in the operator's dtype and
        given back as what they were.

        Raises:
            InvalidType: not a tensor. InvalidArgument: wrong shape, dtype or device.
        """
        if isinstance(block, Operator):
            return type(self)._composed(self, block)
        if is_other_form(self, block):
            return in_its_form(self, block, self.__matmul__)
        self._check(block, self.shape[1])
        return _normally(self._apply, block)

    def __rmatmul__(self, rows: Any) -> Any:
        """The product from the left, ``rows @ A``, for a vector (m,) or rows (b, m); the result is (n,) or (b, n).

        Raises:
            InvalidType: not a tensor. InvalidArgument: wrong shape, dtype or device, or no products with the adjoint.
        """
        if is_other_form(self, rows):
            return in_its_form(self, rows, self.__rmatmul__)
        if not isinstance(rows, Tensor):
            raise InvalidType(
                f"cannot multiply a {type(rows).__name__} with an operator: pass a torch tensor (torch.as_tensor)"
            )
        if rows.ndim not in (1, 2) or rows.shape[-1] != self.shape[0]:
            raise InvalidArgument(
                f"cannot multiply a tensor of shape {tuple(rows.shape)} with a {self.shape[0]} x {self.shape[1]} operator: "
                f"pass ({self.shape[0]},) or (b, {self.shape[0]})"
            )
        if rows.ndim == 1:
            return self.adjoint_matmul(rows.conj().resolve_conj()).conj().resolve_conj()
        return self.adjoint_matmul(rows.mH.resolve_conj()).mH.resolve_conj()

    def adjoint_matmul(self, block: Tensor) -> Tensor:
        """A* @ block, for a vector (m,) or block (m, b)."""
        self._check(block, self.shape[0])
        return _normally(self._apply_adjoint, block)

    def _check(self, block: Tensor, length: int) -> None:
        if not isinstance(block, Tensor):
            raise InvalidType(
                f"cannot multiply with a {type(block).__name__}: pass a tensor (D,) or (D, b), tensors by parameter name as in "
                "dict(model.named_parameters()), a list with one for each parameter, or an array"
            )
        if block.ndim not in (1, 2) or block.shape[0] != length:
            raise InvalidArgument(
                f"cannot multiply a {self.shape[0]} x {self.shape[1]} operator with a tensor of shape "
                f"{tuple(block.shape)}: pass ({length},) or ({length}, b)"
            )
        if block.dtype != self.dtype:
            raise InvalidArgument(f"the operator is {self.dtype}, the block {block.dtype}: use block.to(A.dtype)")
        if block.device != self.device:
            raise InvalidArgument(f"the operator is on {self.device}, the block on {block.device}: use block.to(A.device)")

    def __repr__(self) -> str:
        kind = "Hermitian, " if self.hermitian else ""
        return f"{type(self).__name__}({self.shape[0]} x {self.shape[1]}, {kind}{self.dtype}, {self.device})"


def _normally(apply: Callable[[Tensor], Tensor], block: Tensor) -> Tensor:
    """A product with a vector or a block, also under ``torch.inference_mode``, where nothing could be differentiated."""
    if not torch.is_inference_mode_enabled() and not block.is_inference():  # the common case, in the fewest calls
        return apply(block) if block.ndim == 2 else apply(block[:, None])[:, 0]
    with out_of_inference():
        block = block.clone() if block.is_inference() else block
        return apply(block) if block.ndim == 2 else apply(block[:, None])[:, 0]
