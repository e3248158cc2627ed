"""Tall matrices read as NumPy and PyTorch arrays are: ``V[:, :5]``, ``V.T``, ``V @ x``, ``np.asarray(V)``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType, OutOfBudget

MEMORY_SHARE = 0.8
"""Share of the free memory that reading a whole matrix may take: the rest is for what is done with it."""


class ArrayLike(ABC):
    """Reading of a D x n matrix in the ways of an h5py data set; what is read is a tensor on the matrix's device.

    ``V[:, 0]``, ``V[:, :5]``, ``V[rows]`` (integers, a slice, a bool mask), ``V[rows, columns]``; ``len(V)`` is D;
    iteration gives rows, ``for v in V.T`` columns; ``V.T``, ``V @ x``, ``x @ V``; ``np.asarray(V)``, ``torch.as_tensor(V)``,
    ``torch.from_dlpack(V)``.

    Raises:
        OutOfBudget: more would be read into memory than is free; said before anything is read.

    >>> from curvscope.tall import InMemory
    >>> V = InMemory(torch.eye(4)[:, :3])
    >>> len(V), V[:, 1].tolist(), V[torch.tensor([0, 3]), :2].tolist(), (V.T @ V).shape
    (4, [0.0, 1.0, 0.0, 0.0], [[1.0, 0.0], [0.0, 0.0]], torch.Size([3, 3]))
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device
    ndim = 2

    @abstractmethod
    def columns(self, start: int, stop: int) -> Tensor:
        """Columns start..stop as a (D, stop - start) tensor."""

    @abstractmethod
    def rows(self, index: Tensor | slice) -> Tensor:
        """The rows at ``index`` (in its order) as a (len(index), n) tensor."""

    @abstractmethod
    def panels(self, most_rows: int | None = None) -> Iterator[slice]:
        """Row ranges that together cover the matrix."""

    def _in_memory(self) -> bool:
        """Return whether reading takes no further memory, because the whole matrix is a tensor already."""
        return isinstance(getattr(self, "tensor", None), Tensor)

    def _check_memory(self, entries: int) -> None:
        """Raise OutOfBudget where so many entries do not fit the free memory."""
        needed = entries * self.dtype.itemsize
        free = psutil.virtual_memory().available
        if not self._in_memory() and needed > MEMORY_SHARE * free:
            raise OutOfBudget(
                f"reading {entries} entries of the {self.shape[0]} x {self.shape[1]} matrix takes {needed / 2**30:.3g} GiB, "
                f"{free / 2**30:.3g} GiB are free: read parts, V[:, :5] or V[start:stop], or use V @ x, which reads panels"
            )

    def numel(self) -> int:
        """D n, the number of entries."""
        return self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        for panel in self.panels():
            yield from self.rows(panel)

    def __getitem__(self, key: Any) -> Tensor:
        """Rows, columns or entries as a tensor; columns are read by columns, everything else by rows."""
        if isinstance(key, tuple):
            if key and key[0] is Ellipsis:
                key = (slice(None), *key[1:])
            if len(key) == 1:
                key = (key[0], slice(None))
            if len(key) != 2:
                raise InvalidArgument(f"a matrix has rows and columns, got {len(key)} indices: use V[rows, columns]")
            rows, columns = key
        else:
            rows, columns = key, slice(None)
        return self._at(_plain_index(rows), _plain_index(columns))

    def _at(self, rows: Any, columns: Any) -> Tensor:
        size, width = self.shape
        if rows is Ellipsis:
            rows = slice(None)
        whole = isinstance(rows, slice) and rows == slice(None)
        if whole and isinstance(columns, int):
            if not -width <= columns < width:
                raise IndexError(f"column {columns} of {width}: choose {-width} to {width - 1}")
            columns %= width
            return self.columns(columns, columns + 1)[:, 0]
        if whole and isinstance(columns, slice) and columns.step in (None, 1):
            start, stop, _ = columns.indices(width)
            self._check_memory(size * max(0, stop - start))
            return self.columns(start, max(start, stop))
        if isinstance(rows, int):
            if not -size <= rows < size:
                raise IndexError(f"row {rows} of {size}: choose {-size} to {size - 1}")
            rows %= size
            return self.rows(slice(rows, rows + 1))[0][columns]
        return self._slice_at(rows, columns) if isinstance(rows, slice) else self._index_at(rows, columns)

    def _slice_at(self, rows: slice, columns: Any) -> Tensor:
        size, width = self.shape
        if rows.step not in (None, 1):
            index = torch.arange(size, device="cpu")[rows] if rows.step > 0 else torch.arange(*rows.indices(size), device="cpu")
            return self._index_at(index, columns)
        start, stop, _ = rows.indices(size)
        self._check_memory(max(0, stop - start) * width)
        return self.rows(slice(start, max(start, stop)))[:, columns]

    def _index_at(self, rows: Any, columns: Any) -> Tensor:
        size, width = self.shape
        if not isinstance(rows, Tensor):
            raise InvalidType(f"rows are chosen by a {type(rows).__name__}: use integers, a slice, or a bool mask (D,)")
        if rows.dtype == torch.bool:
            if rows.shape != (size,):
                raise IndexError(f"the bool mask has shape {tuple(rows.shape)}, the matrix {size} rows")
            rows = rows.nonzero().flatten()
        if len(rows) and not -size <= int(rows.min()) <= int(rows.max()) < size:
            raise IndexError(f"rows from {int(rows.min())} to {int(rows.max())}: the matrix has {size}")
        self._check_memory(len(rows) * width)
        found = self.rows((rows % size).to(self.device))
        if isinstance(columns, Tensor) and columns.dtype != torch.bool and columns.ndim == 1:
            return found[torch.arange(len(rows), device=self.device), columns.to(self.device)]
        return found[:, columns]

    @property
    def T(self) -> Transposed:
        """The transpose, (n, D), without a copy."""
        return Transposed(self)

    mT = T

    def __matmul__(self, other: Any) -> Tensor:
        """V @ x for x (n,) or (n, m), as a tensor; panel by panel, so that a matrix on disk is never wholly in memory.

        Cost: 2 D n m operations, one read; memory: the D x m result.
        """
        if isinstance(other, ArrayLike):
            other = other[:]
        if isinstance(other, Transposed):
            self._check_memory(self.shape[0] * other.shape[1])
            other = other.matrix[:].T
        small = torch.as_tensor(other, device=self.device)
        if small.ndim not in (1, 2) or small.shape[0] != self.shape[1]:
            raise InvalidArgument(
                f"cannot multiply {self.shape[0]} x {self.shape[1]} with a tensor of shape {tuple(small.shape)}: pass "
                f"({self.shape[1]},) or ({self.shape[1]}, m)"
            )
        small = small.to(self.device, torch.promote_types(self.dtype, small.dtype))
        return torch.cat([self.rows(panel).to(small.dtype) @ small for panel in self.panels()])

    __array_ufunc__ = None  # arrays of NumPy leave ``array @ V`` to us

    def __rmatmul__(self, other: Any) -> Tensor:
        """Return x @ V for x (D,) or (m, D), as a tensor."""
        left = torch.as_tensor(other, device=self.device)
        return self.T @ left if left.ndim == 1 else (self.T @ left.T).T

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Let functions of PyTorch take the matrix as the tensor it holds."""
        if function in (torch.Tensor.__matmul__, torch.Tensor.matmul, torch.matmul) and isinstance(args[1], ArrayLike):
            return args[1].__rmatmul__(args[0])
        return function(*(_tensor(value) for value in args), **{name: _tensor(value) for name, value in (kwargs or {}).items()})

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of it as a NumPy array (D, n)."""
        self._check_memory(self.numel())
        return np.asarray(self[:].detach().cpu().numpy(), dtype=dtype)

    def __dlpack__(self, **options: Any) -> Any:
        """All of it for ``from_dlpack``: shared where the matrix is in memory, read where not."""
        return self[:].__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        """Return the device of that tensor."""
        return torch.empty(0, device=self.device).__dlpack_device__()

    def __getattr__(self, name: str) -> Any:
        """Explain a name of tensors and arrays that is not here; called only where the usual look-up failed."""
        if not name.startswith("_") and (hasattr(Tensor, name) or hasattr(np.ndarray, name) or name == "to_numpy"):
            raise AttributeError(
                f"eigenvectors may lie on disk and have no {name!r}: V.to_tensor() is a tensor, np.asarray(V) an array, "
                "V[:, i] a column"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __mul__(self, other: Any) -> Tensor:
        """Entry by entry, in memory: ``V * w`` scales the columns."""
        return self[:, :] * _operand(other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Tensor:
        return self[:, :] / _operand(other)

    def __add__(self, other: Any) -> Tensor:
        return self[:, :] + _operand(other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Tensor:
        return self[:, :] - _operand(other)

    def __rsub__(self, other: Any) -> Tensor:
        return _operand(other) - self[:, :]

    def __neg__(self) -> Tensor:
        return -self[:, :]

    def __pow__(self, power: Any) -> Tensor:
        found: Tensor = self[:, :] ** power
        return found

    def numpy(self) -> np.ndarray:
        """All of it as a NumPy array (D, n)."""
        return self.__array__()

    def cpu(self) -> Tensor:
        """All of it as a tensor on the CPU."""
        return self[:].cpu()

    def to(self, *target: Any, **options: Any) -> Tensor:
        """All of it as a tensor, on a device or in a dtype, as ``Tensor.to`` does."""
        return self[:].to(*target, **options)


class Transposed:
    """The transpose of a tall matrix, (n, D): iteration gives the columns of that matrix."""

    __array_ufunc__ = None
    ndim = 2

    def __init__(self, matrix: ArrayLike) -> None:
        self.matrix = matrix
        self.shape = (matrix.shape[1], matrix.shape[0])
        self.dtype, self.device = matrix.dtype, matrix.device

    @property
    def T(self) -> ArrayLike:
        """The tall matrix."""
        return self.matrix

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        for column in range(self.shape[0]):
            yield self.matrix[:, column]

    def __getitem__(self, key: Any) -> Tensor:
        """As of a tensor of this shape."""
        rows, columns = key if isinstance(key, tuple) and len(key) == 2 else (key, slice(None))
        if isinstance(rows, tuple):
            rows = rows[0]
        found = self.matrix[columns, rows]
        return found.T if found.ndim == 2 else found

    def __matmul__(self, other: Any) -> Tensor:
        """V.T @ x for x (D,), (D, m) or another tall matrix, as a tensor. Cost: 2 D n m operations, one read of each."""
        matrix = self.matrix
        if not isinstance(other, ArrayLike):
            other = torch.as_tensor(other, device=self.matrix.device)
        if len(other.shape) not in (1, 2) or other.shape[0] != matrix.shape[0]:
            raise InvalidArgument(
                f"cannot multiply {self.shape[0]} x {self.shape[1]} with shape {tuple(other.shape)}: pass ({self.shape[1]},) "
                f"or ({self.shape[1]}, m)"
            )
        dtype = torch.promote_types(matrix.dtype, other.dtype)
        shape = (matrix.shape[1], *other.shape[1:])
        total = torch.zeros(shape, dtype=dtype, device=matrix.device)
        for panel in matrix.panels():
            rows = other.rows(panel) if hasattr(other, "rows") else other[panel]
            total += matrix.rows(panel).to(dtype).T @ rows.to(matrix.device, dtype)
        return total

    def __rmatmul__(self, other: Any) -> Tensor:
        """X @ V.T, (m, D)."""
        left = torch.as_tensor(other, device=self.matrix.device)
        return self.matrix @ left if left.ndim == 1 else (self.matrix @ left.T).T

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """As for :class:`ArrayLike`."""
        if function in (torch.Tensor.__matmul__, torch.Tensor.matmul, torch.matmul) and isinstance(args[1], cls):
            return args[1].__rmatmul__(args[0])
        return function(*(_tensor(value) for value in args), **{name: _tensor(value) for name, value in (kwargs or {}).items()})

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of it as a NumPy array (n, D)."""
        return self.matrix.__array__(dtype).T

    def __dlpack__(self, **options: Any) -> Any:
        """See :meth:`ArrayLike.__dlpack__`."""
        return self.matrix[:].T.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        """See :meth:`ArrayLike.__dlpack_device__`."""
        return self.matrix.__dlpack_device__()

    def __repr__(self) -> str:
        return f"{self.matrix!r}.T"


def _operand(value: Any) -> Tensor:
    found: Tensor = _tensor(value)  # a number stands for a tensor
    return found


def _tensor(value: Any) -> Any:
    if isinstance(value, ArrayLike):
        return value[:]
    if isinstance(value, Transposed):
        return value.matrix[:].T
    if isinstance(value, list | tuple):
        return type(value)(_tensor(item) for item in value)
    return value


def _plain_index(index: Any) -> Any:
    """An index with arrays and lists as tensors, and whole numbers of any library as integers."""
    if isinstance(index, slice) or index is Ellipsis:
        return index
    if isinstance(index, np.ndarray | list | range):
        index = torch.as_tensor(list(index) if isinstance(index, range) else index, device="cpu")
    if isinstance(index, Tensor):
        return index.cpu() if index.ndim else int(index)
    return int(index) if hasattr(index, "__index__") else index
