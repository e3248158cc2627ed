"""Matrices from elsewhere as operators: tensors, arrays, SciPy and curvlinops operators, anything with ``@``."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType, MissingExtra
from curvscope.operators.base import Operator
from curvscope.operators.fingerprint import fingerprint
from curvscope.operators.identity import fixed_vector, measured

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


class Dense(Operator):
    """A matrix held in memory.

    Args:
        matrix: (m, n) real or complex tensor; not copied, and not to be changed afterwards.
        hermitian: None to look (relative asymmetry up to 10 times the rounding unit counts as Hermitian).

    Raises:
        InvalidArgument: not a floating-point matrix, or entries that are not finite.

    >>> A = Dense(torch.tensor([[2.0, 1.0], [1.0, 3.0]]))
    >>> A.hermitian, (A @ torch.ones(2)).tolist()
    (True, [3.0, 4.0])
    """

    def __init__(self, matrix: Tensor, *, hermitian: bool | None = None) -> None:
        if matrix.ndim != 2 or not (matrix.is_floating_point() or matrix.is_complex()):
            raise InvalidArgument(
                f"expected a floating-point matrix, got shape {tuple(matrix.shape)} of {matrix.dtype}: "
                "pass a two-dimensional tensor, for integers matrix.double()"
            )
        check_dtype(matrix.dtype)
        if not bool(torch.isfinite(matrix).all()):
            raise InvalidArgument("the matrix has entries that are NaN or infinite: look at what it was made from")
        self.matrix = matrix
        self.shape = (matrix.shape[0], matrix.shape[1])
        self.dtype, self.device = matrix.dtype, matrix.device
        self.hermitian = _looks_hermitian(matrix) if hermitian is None else hermitian

    def _apply(self, block: Tensor) -> Tensor:
        return self.matrix @ block

    def _apply_adjoint(self, block: Tensor) -> Tensor:
        return self.matrix.mH @ block

    def _fingerprint(self) -> str:
        return fingerprint("dense", self.matrix)


class Foreign(Operator):
    """An operator of another library, given by its own ``@`` on tensors or NumPy arrays."""

    def __init__(self, inner: Any, dtype: torch.dtype, device: torch.device, *, arrays: bool, hermitian: bool) -> None:
        self.inner, self.arrays, self.hermitian = inner, arrays, hermitian
        self.shape = (int(inner.shape[0]), int(inner.shape[1]))
        self.dtype, self.device = dtype, device

    def _apply(self, block: Tensor) -> Tensor:
        return self._call(self.inner.__matmul__, block)

    def _apply_adjoint(self, block: Tensor) -> Tensor:
        if self.hermitian:
            return self._apply(block)
        adjoint = getattr(self.inner, "H", None)
        if adjoint is None:
            adjoint = self.inner.adjoint()
        return self._call(adjoint.__matmul__, block)

    def _call(self, multiply: Any, block: Tensor) -> Tensor:
        rows, before = self.shape[0] + self.shape[1] - block.shape[0], block.sum()
        product = multiply(block.cpu().numpy() if self.arrays else block)
        if not torch.equal(block.sum().nan_to_num(), before.nan_to_num()):
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
        made = torch.from_numpy(_native(product))
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
        product, rounding = measured(self, lambda vector: self._product)
        return {
            "kind": "Foreign",
            "exact": exact,
            "values": {"product": product},
            "rounding": {"unit": self.rounding, "product": rounding},
        }


def as_operator(obj: Any, *, hermitian: bool | None = None) -> Operator:
    """Any matrix-like thing as an :class:`Operator`.

    Args:
        obj: an operator (returned as it is), tensor, NumPy array, SciPy sparse matrix or ``LinearOperator``, curvlinops
            operator, or anything with ``.shape`` and ``@`` on tensors.
        hermitian: whether it equals its adjoint; None: for tensors and arrays it is looked up, for operators known only by
            products it is taken to be true when they are square (solvers look at their products and raise
            ``NotHermitian`` if they show that it is not).

    Raises:
        InvalidType: no ``.shape`` of length 2 or no ``@``. InvalidArgument: a dtype that cannot be computed in; and later, from
            the first product: one of another shape, dtype or device than the object says, or its block changed.

    >>> import numpy as np
    >>> as_operator(np.eye(3)) @ torch.ones(3, dtype=torch.float64)
    tensor([1., 1., 1.], dtype=torch.float64)
    """
    match obj:
        case Operator():
            return obj
        case Tensor():
            return Dense(obj, hermitian=hermitian)
        case np.ndarray():
            return Dense(torch.from_numpy(_native(obj)), hermitian=hermitian)
    shape = getattr(obj, "shape", None)
    if shape is None or len(shape) != 2 or not hasattr(obj, "__matmul__"):
        raise InvalidType(
            f"cannot make an operator of a {type(obj).__name__}: pass a matrix, a SciPy LinearOperator, a curvlinops "
            "operator, or an object with .shape == (m, n) and @"
        )
    if hermitian is None:
        hermitian = shape[0] == shape[1]
    dtype = getattr(obj, "dtype", torch.get_default_dtype())
    if isinstance(dtype, torch.dtype):
        check_dtype(dtype)
        device = torch.device(getattr(obj, "device", "cpu"))
        return Foreign(obj, dtype, device, arrays=False, hermitian=hermitian)
    torch_dtype = torch.from_numpy(_native(np.empty(0, dtype if dtype is not None else np.float64))).dtype
    check_dtype(torch_dtype)
    return Foreign(obj, torch_dtype, torch.device("cpu"), arrays=True, hermitian=hermitian)


def to_scipy(operator: Operator) -> LinearOperator:
    """An operator as a SciPy ``LinearOperator`` on NumPy arrays; see :meth:`.algebra.Composable.to_scipy`.

    >>> import numpy as np
    >>> to_scipy(Dense(torch.eye(2))) @ np.ones(2, dtype=np.float32)
    array([1., 1.], dtype=float32)
    """
    try:
        from scipy.sparse.linalg import LinearOperator
    except ImportError as error:
        raise MissingExtra("to_scipy() needs SciPy: pip install scipy") from error

    def multiply(array: np.ndarray) -> np.ndarray:
        """A x."""
        block = torch.from_numpy(np.ascontiguousarray(array)).to(operator.device, operator.dtype)
        return (operator @ block).cpu().numpy()

    def multiply_adjoint(array: np.ndarray) -> np.ndarray:
        """A* x."""
        block = torch.from_numpy(np.ascontiguousarray(array)).to(operator.device, operator.dtype)
        return operator.adjoint_matmul(block).cpu().numpy()

    dtype = torch.empty(0, dtype=operator.dtype).numpy().dtype
    return LinearOperator(
        operator.shape, matvec=multiply, matmat=multiply, rmatvec=multiply_adjoint, rmatmat=multiply_adjoint, dtype=dtype
    )


DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def check_dtype(dtype: torch.dtype) -> None:
    """Raise InvalidArgument unless solvers can compute in it."""
    if dtype not in DTYPES:
        raise InvalidArgument(f"operators in {dtype} are not supported: pass one in float32 or float64 (or complex)")


def _native(array: np.ndarray) -> np.ndarray:
    """The array as PyTorch takes it: of this machine's byte order, writable, without negative strides; copied if need be."""
    if array.dtype in (np.longdouble, np.clongdouble) and array.dtype not in (np.float64, np.complex128):
        raise InvalidArgument(f"arrays of {array.dtype} are not supported: pass array.astype(np.float64)")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return array if array.flags.writeable and min(array.strides, default=0) >= 0 else array.copy()


def _looks_hermitian(matrix: Tensor) -> bool:
    if matrix.shape[0] != matrix.shape[1]:
        return False
    largest = matrix.abs().max() if matrix.numel() else torch.zeros(())
    return bool((matrix - matrix.mH).abs().max() <= 10 * torch.finfo(matrix.dtype).eps * largest) if matrix.numel() else True
