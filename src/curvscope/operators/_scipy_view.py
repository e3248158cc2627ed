"""Operators as SciPy knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from curvscope.errors import MissingExtra
from curvscope.operators._arrays import numpy_dtype
from curvscope.operators.base import Operator

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


def to_scipy(operator: Operator) -> LinearOperator:
    """An operator as a SciPy ``LinearOperator`` on NumPy arrays; see :meth:`.algebra.Arithmetic.to_scipy`.

    >>> import numpy as np
    >>> from curvscope.operators import as_operator
    >>> to_scipy(as_operator(torch.eye(2))) @ np.ones(2, dtype=np.float32)
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

    return LinearOperator(
        operator.shape,
        matvec=multiply,
        matmat=multiply,
        rmatvec=multiply_adjoint,
        rmatmat=multiply_adjoint,
        dtype=numpy_dtype(operator.dtype),
    )
