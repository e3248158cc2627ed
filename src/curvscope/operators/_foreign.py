"""Operators of other libraries, called the way each library means it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import copy
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators._algebra import Arithmetic
from curvscope.operators._arrays import native
from curvscope.operators._identity import fixed_vector, projected
from curvscope.operators._symmetry import allowed_asymmetry, asymmetry_of_products
from curvscope.operators.fingerprint import fingerprint
from curvscope.sketches import TestMatrix

Multiply = Callable[[Any], Any]


class Foreign(Arithmetic):
    """An operator of another library, given by its own products.

    Args:
        inner: with ``.shape``.
        dtype: of the products.
        device: where they are computed.
        arrays: whether it multiplies NumPy arrays, not tensors.
        hermitian: None: assumed where it is square, until its products show that it is not.
    """

    def __init__(
        self, inner: Any, dtype: torch.dtype, device: torch.device, *, arrays: bool, hermitian: bool | None = None
    ) -> None:
        self.inner, self.arrays = inner, arrays
        self.shape = (int(inner.shape[0]), int(inner.shape[1]))
        self.hermitian = self.shape[0] == self.shape[1] if hermitian is None else hermitian
        self.assumed_hermitian = hermitian is None and self.hermitian
        self._unknown = self.assumed_hermitian
        self.dtype, self.device = dtype, device

    def _apply(self, block: Tensor) -> Tensor:
        if is_linear_operator(self.inner):
            return self._call(_by_columns(self.inner, adjoint=False), block)
        if hasattr(self.inner, "__matmul__"):
            return self._call(self.inner.__matmul__, block)
        if self.hermitian:
            return self._call(self._from_the_left, block)
        raise InvalidArgument(f"{self._name} gives x @ A alone, and is not Hermitian: define its @, which products A @ x need")

    def _apply_adjoint(self, block: Tensor) -> Tensor:
        if self.hermitian and not self._unknown:
            return self._apply(block)
        try:
            return self._call(self._adjoint(), block)
        except NotImplementedError as error:  # SciPy's word for a missing rmatvec
            if self._products_are_symmetric():
                return self._apply(block)
            raise InvalidArgument(
                f"{self._name} gives no products with its adjoint, which singular values need: define rmatvec (SciPy), .H or "
                ".adjoint(); for a symmetric operator pass as_operator(A, hermitian=True)"
            ) from error

    def without_assumption(self) -> Foreign:
        """See :meth:`.Operator.without_assumption`."""
        if not self.assumed_hermitian:
            return self
        made = copy(self)
        made.hermitian = made.assumed_hermitian = False
        return made

    def _adjoint(self) -> Multiply:
        """Products with the adjoint; NotImplementedError where there are none."""
        if is_linear_operator(self.inner):
            return _by_columns(self.inner, adjoint=True)
        adjoint = getattr(self.inner, "H", None)
        if adjoint is None and hasattr(self.inner, "adjoint"):
            adjoint = self.inner.adjoint()
        if adjoint is None and hasattr(self.inner, "__rmatmul__"):
            return self._from_the_left
        if adjoint is None:
            raise NotImplementedError
        multiply: Multiply = adjoint.__matmul__
        return multiply

    def _from_the_left(self, block: Any) -> Any:
        """A* x by x* A, for operators that multiply rows."""
        if self.arrays:
            return np.asarray(self.inner.__rmatmul__(block.conj().T)).conj().T
        product = self.inner.__rmatmul__(block.mH.resolve_conj())
        return product.mH.resolve_conj() if isinstance(product, Tensor) and product.ndim == 2 else product

    def _products_are_symmetric(self) -> bool:
        """Two products, once: whether a square operator without an adjoint is its own."""
        if self._unknown:
            random = TestMatrix("gaussian", self.shape[1], seed=0, role="symmetry", dtype=self.dtype, device=self.device)
            block = random.columns(0, 2)
            found = asymmetry_of_products(block, self._apply(block))
            self.hermitian = found <= allowed_asymmetry(self.shape[0], self.rounding)
            self._unknown = self.assumed_hermitian = False
        return self.hermitian

    def _call(self, multiply: Multiply, block: Tensor) -> Tensor:
        rows, before = self.shape[0] + self.shape[1] - block.shape[0], block.sum().item()
        product = multiply(block.cpu().numpy() if self.arrays else block)
        after = block.sum().item()
        if after != before and (after == after or before == before):  # NaN differs from itself
            raise InvalidArgument(f"{self._name} changes the block that it multiplies: work on a copy of it")
        if self.arrays:
            product = self._as_tensor(np.asarray(product))
        if not isinstance(product, Tensor):
            raise InvalidType(f"{self._name} gives a {type(product).__name__} for a tensor: its @ must give a tensor")
        if product.shape != (rows, block.shape[1]):
            raise InvalidArgument(
                f"{self._name} gives {tuple(product.shape)} for a block {tuple(block.shape)}, expected ({rows}, "
                f"{block.shape[1]}): its @ must take blocks of any number of columns"
            )
        if product.dtype != self.dtype or product.device != block.device:
            raise InvalidArgument(
                f"{self._name} says {self.dtype} on {block.device}, its product is {product.dtype} on {product.device}: set "
                "its .dtype and .device to those of its products"
            )
        return product.detach()

    def _as_tensor(self, product: np.ndarray) -> Tensor:
        """A product as a tensor of this dtype: SciPy operators need not say exactly which one they have."""
        made = torch.from_numpy(native(product))
        return made if made.dtype.is_complex and not self.dtype.is_complex else made.to(self.device, self.dtype)

    @property
    def _name(self) -> str:
        return f"the operator ({type(self.inner).__name__})"

    @cached_property
    def _product(self) -> Tensor:
        # a random vector: simple ones, such as that of ones, are in the null space of many matrices
        return self._apply(fixed_vector(self))

    def _fingerprint(self) -> str:
        return fingerprint("foreign", type(self.inner).__qualname__, self.shape, self._product)

    def _identity(self) -> dict[str, Any]:
        exact = {"class": type(self.inner).__qualname__, "shape": list(self.shape), "dtype": str(self.dtype)}
        return {
            "kind": "Foreign",
            "exact": exact,
            "values": {"product": projected(self, self._product)},
            "rounding": {"unit": self.rounding, "product": self.rounding},
        }


def is_linear_operator(obj: Any) -> bool:
    """Return whether it is a SciPy ``LinearOperator``; does not import SciPy."""
    module = sys.modules.get("scipy.sparse.linalg")
    return module is not None and isinstance(obj, module.LinearOperator)


def _by_columns(operator: Any, *, adjoint: bool) -> Multiply:
    """Products of a SciPy ``LinearOperator`` with blocks.

    SciPy hands an (n, 1) block to a matvec that was written for (n,), which broadcasts to another result or fails. So single
    columns go to matvec as (n,), and blocks to matmat only where the operator brings its own.
    """
    blockwise = _has_own_matmat(operator, adjoint=adjoint)
    vector, matrix = (operator.rmatvec, operator.rmatmat) if adjoint else (operator.matvec, operator.matmat)

    def multiply(block: np.ndarray) -> np.ndarray:
        """A @ block, or A* @ block."""
        if blockwise and block.shape[1] > 1:
            product: np.ndarray = matrix(block)
            return product
        return np.stack([np.asarray(vector(column)).reshape(-1) for column in np.ascontiguousarray(block.T)], axis=1)

    return multiply


def _has_own_matmat(operator: Any, *, adjoint: bool) -> bool:
    """Return whether a SciPy operator, and all that it is composed of, multiplies blocks itself."""
    base = sys.modules["scipy.sparse.linalg"].LinearOperator
    name = "rmatmat" if adjoint else "matmat"
    if hasattr(operator, "_CustomLinearOperator__matvec_impl"):
        return getattr(operator, f"_CustomLinearOperator__{name}_impl", None) is not None
    parts = [part for part in getattr(operator, "args", ()) if isinstance(part, base)]
    if parts:
        return all(_has_own_matmat(part, adjoint=side) for part in parts for side in (False, True))
    return getattr(type(operator), f"_{name}") is not getattr(base, f"_{name}")
