"""D x n matrices, D large and n moderate, read by row panels and column blocks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.tall._array_like import ArrayLike

PANEL_BYTES = 1 << 25
"""What one row panel may take when a matrix is worked through."""


class TallMatrix(ArrayLike):
    """A D x n matrix whose columns are vectors of parameters; it is read as arrays are, see :class:`.ArrayLike`.

    Attributes:
        shape: (D, n).
        dtype: of the entries.
        device: where tensors read from it lie.

    >>> V = InMemory(torch.eye(4)[:, :3])
    >>> V, V.leading(2).shape, V.columns(1, 2).T.tolist()
    (InMemory(4 x 3, torch.float32, cpu), (4, 2), [[0.0, 1.0, 0.0, 0.0]])
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    @abstractmethod
    def columns(self, start: int, stop: int) -> Tensor:
        """Columns start..stop as a (D, stop - start) tensor."""

    @abstractmethod
    def rows(self, index: Tensor | slice) -> Tensor:
        """The rows at ``index`` (in its order) as a (len(index), n) tensor."""

    @abstractmethod
    def write_rows(self, panel: slice, block: Tensor) -> None:
        """Overwrite a panel of rows, one of :meth:`panels`, with (len(panel), b): its first b columns.

        What ``rows`` gave as a view and was changed in place is not copied.
        """

    @abstractmethod
    def between(self, start: int, stop: int) -> TallMatrix:
        """Columns start..stop as a tall matrix, without a copy."""

    def leading(self, n: int) -> TallMatrix:
        """The first n columns, without a copy."""
        return self.between(0, n)

    @abstractmethod
    def write(self, start: int, block: Tensor) -> None:
        """Overwrite the columns from ``start`` on with a (D, b) block."""

    @abstractmethod
    def empty_like(self, columns: int) -> TallMatrix:
        """Room for a matrix of as many rows, where this one lies, of its dtype and device."""

    def rotate(self, matrix: Tensor, start: int = 0) -> None:
        """With an m x p matrix, p <= m: the first p columns from ``start`` on become (m columns from ``start``) @ matrix.

        Cost: 2 D m p operations, one read and one write; memory: one panel.
        """
        part, small = self.between(start, start + matrix.shape[0]), matrix.to(self.device, self.dtype)
        for panel in self.panels():
            part.write_rows(panel, part.rows(panel) @ small)

    def to_tensor(self) -> Tensor:
        """All of it as one (D, n) tensor. Memory: D n entries when the matrix is not in memory already."""
        return self.columns(0, self.shape[1])

    def panels(self, most_rows: int | None = None) -> Iterator[slice]:
        """Row ranges that together cover the matrix, each at most ``PANEL_BYTES`` in float64 (and ``most_rows`` long)."""
        step = max(256, PANEL_BYTES // (8 * max(1, self.shape[1])))
        step = min(step, most_rows or step)
        for start in range(0, self.shape[0], step):
            yield slice(start, min(start + step, self.shape[0]))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shape[0]} x {self.shape[1]}, {self.dtype}, {self.device})"


class InMemory(TallMatrix):
    """A tall matrix in a tensor, columns contiguous where we allocate it ourselves.

    Args:
        tensor: (D, n); kept, not copied.

    >>> V = InMemory(torch.eye(4)[:, :2])
    >>> V.shape, V.rows(torch.tensor([1, 3])).tolist()
    ((4, 2), [[0.0, 1.0], [0.0, 0.0]])
    """

    def __init__(self, tensor: Tensor) -> None:
        if tensor.ndim != 2:
            raise InvalidArgument(f"a tall matrix has two dimensions, got shape {tuple(tensor.shape)}")
        self.tensor = tensor
        self.shape = (tensor.shape[0], tensor.shape[1])
        self.dtype, self.device = tensor.dtype, tensor.device

    @classmethod
    def empty(cls, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> InMemory:
        """Room for a D x n matrix with contiguous columns, so that leading blocks of columns are contiguous too."""
        return cls(torch.empty(columns, rows, dtype=dtype, device=device).T)

    def columns(self, start: int, stop: int) -> Tensor:
        """A view; see :meth:`TallMatrix.columns`."""
        return self.tensor[:, start:stop]

    def rows(self, index: Tensor | slice) -> Tensor:
        """See :meth:`TallMatrix.rows`; a view for slices."""
        return self.tensor[index]

    def between(self, start: int, stop: int) -> InMemory:
        """A view; see :meth:`TallMatrix.between`."""
        return InMemory(self.tensor[:, start:stop])

    def leading(self, n: int) -> InMemory:
        """A view; see :meth:`TallMatrix.leading`."""
        return self.between(0, n)

    def write(self, start: int, block: Tensor) -> None:
        """See :meth:`TallMatrix.write`."""
        self.tensor[:, start : start + block.shape[1]] = block

    def write_rows(self, panel: slice, block: Tensor) -> None:
        """See :meth:`TallMatrix.write_rows`; any rows."""
        place = self.tensor[panel, : block.shape[1]]
        if block.data_ptr() != place.data_ptr():
            place.copy_(block)

    def empty_like(self, columns: int) -> InMemory:
        """See :meth:`TallMatrix.empty_like`; columns contiguous."""
        return InMemory.empty(self.shape[0], columns, self.dtype, self.device)


def copy(source: TallMatrix, target: TallMatrix) -> None:
    """Write the source into the leading columns of the target, panel by panel. Cost: one read and one write."""
    for panel in (source if isinstance(target, InMemory) else target).panels():
        target.write_rows(panel, source.rows(panel))
