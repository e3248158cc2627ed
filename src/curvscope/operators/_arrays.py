"""NumPy arrays and dtypes as PyTorch takes them."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def check_dtype(dtype: torch.dtype) -> None:
    """Raise InvalidArgument unless solvers can compute in it."""
    if dtype not in DTYPES:
        raise InvalidArgument(f"operators in {dtype} are not supported: pass one in float32 or float64 (or complex)")


def native(array: np.ndarray) -> np.ndarray:
    """The array as PyTorch takes it: of this machine's byte order, writable, without negative strides; copied if need be.

    Integers and booleans become float64.

    Raises:
        InvalidArgument: a dtype that PyTorch does not have.
    """
    if array.dtype.char in "dfDF" and array.dtype.isnative and array.flags.writeable and min(array.strides, default=0) >= 0:
        return array  # the usual case first: this is done for every product
    if array.dtype in (np.longdouble, np.clongdouble) and array.dtype not in (np.float64, np.complex128):
        raise InvalidArgument(f"arrays of {array.dtype} are not supported: pass array.astype(np.float64)")
    if array.dtype.kind in "iub":
        return array.astype(np.float64)
    if array.dtype.kind not in "fc":
        raise InvalidArgument(f"arrays of dtype {array.dtype} are not supported: pass numbers, array.astype(np.float64)")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return array if array.flags.writeable and min(array.strides, default=0) >= 0 else array.copy()


def numeric(tensor: Tensor) -> Tensor:
    """The tensor without its autograd graph, integers and booleans as float64.

    Raises:
        InvalidArgument: a dtype that solvers cannot compute in.
    """
    tensor = tensor.detach()
    if not (tensor.is_floating_point() or tensor.is_complex()):
        tensor = tensor.double()
    check_dtype(tensor.dtype)
    return tensor


class ArrayDtype:
    """The attribute ``dtype`` of an operator: PyTorch's, and NumPy's of the same name for code of SciPy.

    ``scipy.sparse.linalg`` takes any object with ``shape``, ``matvec`` and ``dtype``, and passes ``dtype`` to ``numpy.dtype``,
    which raises TypeError for those of PyTorch. The module of the caller is the only thing that tells SciPy from others. With
    it ``scipy.sparse.linalg.eigsh(H)`` and ``cg(H, b)`` work as they do on a sparse matrix.

    >>> class Matrix:
    ...     dtype = ArrayDtype()
    >>> matrix = Matrix()
    >>> matrix.dtype = torch.float32
    >>> matrix.dtype
    torch.float32
    """

    def __get__(self, owner: Any, kind: type) -> Any:
        """Return the operator's dtype, in the form of the library that asks."""
        if owner is None:
            raise AttributeError("dtype")  # of a class: an operator's dtype is its own
        try:
            dtype = owner.__dict__["dtype"]
        except KeyError:
            raise AttributeError(f"{type(owner).__name__} has no dtype: set self.dtype") from None
        asking = sys._getframe(1).f_globals.get("__name__", "")
        return numpy_dtype(dtype) if asking.startswith("scipy.") else dtype

    def __set__(self, owner: Any, dtype: torch.dtype) -> None:
        """Keep PyTorch's dtype."""
        owner.__dict__["dtype"] = dtype


def numpy_dtype(dtype: torch.dtype) -> np.dtype:
    """Return NumPy's dtype for one of PyTorch's that operators may have.

    >>> numpy_dtype(torch.complex64)
    dtype('complex64')
    """
    return torch.empty(0, dtype=dtype, device="cpu").numpy().dtype
