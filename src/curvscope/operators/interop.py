"""Matrices from elsewhere as operators: tensors, arrays, SciPy and curvlinops operators, anything with ``@``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType, MissingExtra
from curvscope.operators.base import Operator
from curvscope.operators.fingerprint import fingerprint

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
        if not self.arrays:
            return multiply(block)
        return torch.from_numpy(np.asarray(multiply(block.cpu().numpy()))).to(self.device, self.dtype)

    def _fingerprint(self) -> str:
        probe = torch.ones(self.shape[1], 1, dtype=self.dtype, device=self.device)
        return fingerprint("foreign", type(self.inner).__qualname__, self.shape, self._apply(probe))


def as_operator(obj: Any, *, hermitian: bool | None = None) -> Operator:
    """Any matrix-like thing as an :class:`Operator`.

    Args:
        obj: an operator (returned as it is), tensor, NumPy array, SciPy sparse matrix or ``LinearOperator``, curvlinops
            operator, or anything with ``.shape`` and ``@`` on tensors.
        hermitian: whether it equals its adjoint; None: for tensors and arrays it is looked up, for operators known only by
            products it is taken to be true when they are square (solvers measure the asymmetry and report it).

    Raises:
        InvalidType: no ``.shape`` of length 2 or no ``@``.

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
            return Dense(torch.from_numpy(obj), hermitian=hermitian)
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
        device = torch.device(getattr(obj, "device", "cpu"))
        return Foreign(obj, dtype, device, arrays=False, hermitian=hermitian)
    torch_dtype = torch.from_numpy(np.empty(0, dtype if dtype is not None else np.float64)).dtype
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


def _looks_hermitian(matrix: Tensor) -> bool:
    if matrix.shape[0] != matrix.shape[1]:
        return False
    largest = matrix.abs().max() if matrix.numel() else torch.zeros(())
    return bool((matrix - matrix.mH).abs().max() <= 10 * torch.finfo(matrix.dtype).eps * largest) if matrix.numel() else True
