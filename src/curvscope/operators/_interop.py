"""Matrices from elsewhere as operators: tensors, arrays, SciPy and curvlinops operators, anything with ``@``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators._algebra import Arithmetic
from curvscope.operators._arrays import check_dtype, native, numeric
from curvscope.operators._foreign import Foreign
from curvscope.operators._sparse import SciPySparse, TorchSparse, is_scipy_sparse
from curvscope.operators._symmetry import asymmetry_of_entries, is_symmetric
from curvscope.operators.base import Operator
from curvscope.operators.fingerprint import fingerprint
from curvscope.system import checked

if TYPE_CHECKING:
    pass


class Dense(Arithmetic):
    """A matrix held in memory.

    Args:
        matrix: (m, n) real or complex tensor; not copied, and not to be changed afterwards. Integers and booleans are taken
            as float64, a parameter without its autograd graph.
        hermitian: None: compared entry by entry (differences up to 10 rounding units of the largest entry count as none).

    Raises:
        InvalidArgument: not a matrix, a dtype that cannot be computed in, or entries that are not finite.

    >>> A = Dense(torch.tensor([[2.0, 1.0], [1.0, 3.0]]))
    >>> A.hermitian, (A @ torch.ones(2)).tolist(), A.shift(1.0).hermitian
    (True, [3.0, 4.0], True)
    """

    def __init__(self, matrix: Tensor, *, hermitian: bool | None = None) -> None:
        if matrix.ndim != 2:
            raise InvalidArgument(f"expected a matrix, got a tensor of shape {tuple(matrix.shape)}: pass two dimensions")
        matrix = numeric(matrix)
        if not bool(torch.isfinite(matrix).all()):
            raise InvalidArgument("the matrix has entries that are NaN or infinite: look at what it was made from")
        self.matrix = matrix
        self.shape = (matrix.shape[0], matrix.shape[1])
        self.dtype, self.device = matrix.dtype, matrix.device
        self.asymmetry = asymmetry_of_entries(matrix)
        self.hermitian = is_symmetric(self.asymmetry, self.dtype) if hermitian is None else hermitian

    def _apply(self, block: Tensor) -> Tensor:
        return self.matrix @ block

    def _apply_adjoint(self, block: Tensor) -> Tensor:
        return self.matrix.mH @ block

    def _fingerprint(self) -> str:
        return fingerprint("dense", self.matrix)


Arithmetic._dense = staticmethod(Dense)


@checked
def as_operator(obj: Any, *, hermitian: bool | None = None) -> Operator:
    """Any matrix-like thing as an :class:`Operator`.

    Args:
        obj: an operator (returned as it is), a tensor (dense or sparse, any layout), NumPy array, SciPy sparse matrix or array,
            SciPy ``LinearOperator``, curvlinops operator, or anything with ``.shape`` and ``@`` on tensors or arrays. Integers
            and booleans are taken as float64.
        hermitian: whether it equals its adjoint. None: dense and sparse matrices are compared entry by entry; operators
            known only by products are assumed to be Hermitian when they are square, solvers and estimators look at their
            first products, and raise ``NotHermitian`` if they show that it is not. Singular values use products with the
            adjoint in any case.

    Returns:
        An operator with arithmetic: ``A + B``, ``2 * A``, ``A.shift(c)``, ``A.square()``, ``A.to_scipy()``.

    Raises:
        InvalidType: no ``.shape`` of length 2 or no ``@``. InvalidArgument: a dtype that cannot be computed in; and later, from
            the first product: one of another shape, dtype or device than the object says, or its block changed.

    >>> import numpy as np
    >>> as_operator(np.eye(3, dtype=int)) @ torch.ones(3, dtype=torch.float64)
    tensor([1., 1., 1.], dtype=torch.float64)
    """
    match obj:
        case Operator():
            return obj
        case Tensor():
            return (Dense if obj.layout == torch.strided else TorchSparse)(obj, hermitian=hermitian)
        case np.ndarray():
            return Dense(torch.from_numpy(native(obj)), hermitian=hermitian)
    shape = getattr(obj, "shape", None)
    if shape is None or len(shape) != 2 or not (hasattr(obj, "__matmul__") or hasattr(obj, "__rmatmul__")):
        raise InvalidType(
            f"cannot make an operator of a {type(obj).__name__}: pass a matrix, a SciPy LinearOperator, a curvlinops "
            "operator, or an object with .shape == (m, n) and @ (from the right, or x @ A for a Hermitian one)"
        )
    if is_scipy_sparse(obj):
        return SciPySparse(obj, hermitian=hermitian)
    dtype = getattr(obj, "dtype", torch.get_default_dtype())
    if isinstance(dtype, torch.dtype):
        check_dtype(dtype)
        device = torch.device(getattr(obj, "device", "cpu"))
        return Foreign(obj, dtype, device, arrays=False, hermitian=hermitian)
    torch_dtype = torch.from_numpy(native(np.empty(0, dtype if dtype is not None else np.float64))).dtype
    check_dtype(torch_dtype)
    return Foreign(obj, torch_dtype, torch.device("cpu"), arrays=True, hermitian=hermitian)
