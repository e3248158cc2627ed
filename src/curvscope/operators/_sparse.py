"""Sparse matrices of PyTorch and SciPy, whose entries are known."""

from __future__ import annotations

import sys
import warnings
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.operators._algebra import Arithmetic
from curvscope.operators._arrays import native, numeric
from curvscope.operators._symmetry import is_symmetric
from curvscope.operators.fingerprint import fingerprint


class SciPySparse(Arithmetic):
    """A SciPy sparse matrix or array, multiplied by SciPy.

    Args:
        matrix: any format; kept as CSR, integers and booleans as float64. Not to be changed afterwards.
        hermitian: None: compared entry by entry.

    Raises:
        InvalidArgument: a dtype that cannot be computed in, or entries that are not finite.
    """

    def __init__(self, matrix: Any, *, hermitian: bool | None = None) -> None:
        matrix = matrix.tocsr()
        data = native(matrix.data)
        self.matrix = matrix if data.dtype == matrix.dtype else matrix.astype(data.dtype)
        if not np.isfinite(data).all():
            raise InvalidArgument("the matrix has entries that are NaN or infinite: look at what it was made from")
        self.shape, self.device = (int(matrix.shape[0]), int(matrix.shape[1])), torch.device("cpu")
        self.dtype = torch.from_numpy(np.empty(0, data.dtype)).dtype
        numeric(torch.empty(0, dtype=self.dtype, device="cpu"))
        self.asymmetry = float("inf")
        if self.shape[0] == self.shape[1]:
            self.asymmetry = self._largest_difference()
        self.hermitian = is_symmetric(self.asymmetry, self.dtype) if hermitian is None else hermitian

    def _largest_difference(self) -> float:
        """The largest entry of |A - A*| over the largest of |A|."""
        if not self.matrix.nnz:
            return 0.0
        own, turned = self.matrix, self._transposed().tocsr()
        own = own if own.has_sorted_indices else own.sorted_indices()
        # Most are exactly symmetric, which three comparisons tell in a tenth of the time that a difference takes.
        if all(np.array_equal(getattr(own, part), getattr(turned, part)) for part in ("indptr", "indices", "data")):
            return 0.0
        difference = abs(own - turned).max()
        return float(difference / abs(own).max()) if difference else 0.0

    def _apply(self, block: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(self.matrix @ block.numpy()))

    def _apply_adjoint(self, block: Tensor) -> Tensor:
        return self._apply(block) if self.hermitian else torch.from_numpy(np.asarray(self._adjoint_matrix @ block.numpy()))

    @cached_property
    def _adjoint_matrix(self) -> Any:
        return self._transposed()

    def _transposed(self) -> Any:
        return self.matrix.conj().T if self.dtype.is_complex else self.matrix.T

    def _fingerprint(self) -> str:
        whole = self.matrix
        if not whole.has_canonical_format:
            whole = whole.copy()
            whole.sum_duplicates()
        parts = [torch.from_numpy(np.asarray(part)) for part in (whole.indptr, whole.indices, whole.data)]
        return fingerprint("sparse", self.shape, parts[0].long(), parts[1].long(), parts[2])


class TorchSparse(Arithmetic):
    """A sparse tensor of PyTorch, of any layout, kept as CSR.

    Args:
        matrix: (m, n); integers and booleans are taken as float64. Not to be changed afterwards.
        hermitian: None: compared entry by entry.

    Raises:
        InvalidArgument: not a matrix, a dtype that cannot be computed in, or entries that are not finite.

    >>> A = TorchSparse(torch.eye(3).to_sparse())
    >>> A.hermitian, (A @ torch.ones(3)).tolist()
    (True, [1.0, 1.0, 1.0])
    """

    def __init__(self, matrix: Tensor, *, hermitian: bool | None = None) -> None:
        if matrix.ndim != 2:
            raise InvalidArgument(f"expected a sparse matrix, got a tensor of shape {tuple(matrix.shape)}")
        entries = numeric(matrix.to_sparse_coo() if matrix.layout != torch.sparse_coo else matrix).coalesce()
        if not bool(torch.isfinite(entries.values()).all()):
            raise InvalidArgument("the matrix has entries that are NaN or infinite: look at what it was made from")
        self._entries = entries
        self.shape = (matrix.shape[0], matrix.shape[1])
        self.dtype, self.device = entries.dtype, entries.device
        self.asymmetry = float("inf")
        if self.shape[0] == self.shape[1]:
            difference = (entries - self._transposed()).coalesce().values().abs()
            largest = float(difference.max()) if difference.numel() else 0.0
            self.asymmetry = largest / float(entries.values().abs().max()) if largest else 0.0
        self.hermitian = is_symmetric(self.asymmetry, self.dtype) if hermitian is None else hermitian

    def _apply(self, block: Tensor) -> Tensor:
        return self._rows @ block

    def _apply_adjoint(self, block: Tensor) -> Tensor:
        return (self._rows if self.hermitian else self._columns) @ block

    @cached_property
    def _rows(self) -> Tensor:
        return _as_csr(self._entries)

    @cached_property
    def _columns(self) -> Tensor:
        return _as_csr(self._transposed())

    def _transposed(self) -> Tensor:
        turned = self._entries.transpose(0, 1)
        return (turned.conj().resolve_conj() if self.dtype.is_complex else turned).coalesce()

    def _fingerprint(self) -> str:
        rows = self._rows
        return fingerprint("sparse", self.shape, rows.crow_indices(), rows.col_indices(), rows.values())


def is_scipy_sparse(obj: Any) -> bool:
    """Return whether it is a SciPy sparse matrix or array; does not import SciPy."""
    module = sys.modules.get("scipy.sparse")
    return module is not None and bool(module.issparse(obj))


def _as_csr(entries: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        return entries.to_sparse_csr()
