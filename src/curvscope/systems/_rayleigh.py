"""A matrix in a given basis: Q^T A Q, its Ritz values, and how much of A Q lies outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.measurement import WIDEST_BLOCK, blocks
from curvscope.operators import as_operator
from curvscope.solvers import Solution
from curvscope.solvers.driver import check_operator, metered
from curvscope.system import Displayed, Hinted, Progress, checked
from curvscope.tall import InMemory, TallMatrix, gram

DEPENDENT = 1e-10
"""Smallest eigenvalue of the Gram matrix of unit columns, from which on their Ritz values have lost half of their digits."""


@dataclass(frozen=True, repr=False)
class RayleighQuotient(Displayed, Hinted):
    """Q^T A Q for a basis Q of k columns.

    Attributes:
        matrix: float64 (k, k), symmetric.
        gram: float64 (k, k), Q^T Q; the identity for orthonormal columns.
        eigenvalues: float64 (k,), the Ritz values, descending: of the pair (Q^T A Q, Q^T Q).
        residual_norms: float64 (k,), of the part of each column of A Q outside of the span of Q; 0 for an invariant space.
        products: vectors multiplied.

    >>> import curvscope as cs
    >>> found = cs.rayleigh_quotient(torch.diag(torch.tensor([3.0, 2.0, 1.0]).double()), torch.eye(3).double()[:, 1:])
    >>> found.matrix.tolist(), found.residual_norms.tolist()
    ([[2.0, 0.0], [0.0, 1.0]], [0.0, 0.0])
    """

    _instead: ClassVar[Mapping[str, str]] = {
        "value": "quotient.matrix",
        "values": "quotient.eigenvalues",
        "ritz_values": "quotient.eigenvalues",
        "residuals": "quotient.residual_norms",
    }

    matrix: Tensor
    gram: Tensor
    eigenvalues: Tensor
    residual_norms: Tensor
    products: int

    @property
    def trace(self) -> float:
        """The sum of the Ritz values: tr(A P), P the orthogonal projector on the span."""
        return float(self.eigenvalues.sum())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """``matrix`` as a NumPy array."""
        return np.array(self.matrix.numpy(), dtype=dtype)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        names = ("matrix", "eigenvalues", "residual_norms")
        return {**{name: getattr(self, name).tolist() for name in names}, "products": self.products}

    def __str__(self) -> str:
        low, high = float(self.eigenvalues[-1]), float(self.eigenvalues[0])
        return (
            f"Q^T A Q of {len(self.matrix)} columns: Ritz values from {low:.6g} to {high:.6g}, A Q is outside of the span by "
            f"{float(self.residual_norms.min()):.2g} to {float(self.residual_norms.max()):.2g} ({self.products} products)"
        )


@checked
def rayleigh_quotient(operator: Any, basis: Any, *, executor: Any = None, progress: Progress = None) -> RayleighQuotient:
    r"""Return Q^T A Q for a given basis Q, with its Ritz values and what of A Q lies outside of the span.

    .. math:: Q^\top A Q, \qquad r_j = \|(I - P)\, A q_j\|, \quad P = Q (Q^\top Q)^{-1} Q^\top

    Such as the curvature of one checkpoint in the top eigenspace of another, or along directions between networks.

    Args:
        operator: A, D x D; anything that :func:`curvscope.as_operator` takes.
        basis: Q: a tensor or array (D, k) or (D,), a solution, or a tall matrix. Columns need not be orthonormal.
        executor: who computes the products; see :func:`curvscope.eigsh`. None: this process.
        progress: see :data:`.progress.Progress`.

    Returns:
        ``.matrix``, ``.gram``, ``.eigenvalues``, ``.residual_norms``, ``.products``.

    Cost: k products, 32 at a time; memory: Q and A Q.

    Raises:
        InvalidArgument: an operator that is not square, symmetric and real, a basis of another size, with NaN, or of columns
            that depend on one another to rounding. InvalidType: something else for a basis.

    >>> import curvscope as cs
    >>> A = torch.diag(torch.arange(5.0, 0.0, -1.0).double())
    >>> cs.rayleigh_quotient(A, cs.eigsh(A, k=2)).eigenvalues.round(decimals=6).tolist()
    [5.0, 4.0]
    """
    operator = as_operator(operator)
    check_operator(operator)
    columns = _columns(basis).detach().to(operator.device, operator.dtype)
    if columns.ndim != 2 or columns.shape[0] != operator.shape[0] or not 1 <= columns.shape[1] <= operator.shape[0]:
        raise InvalidArgument(
            f"the basis has shape {tuple(columns.shape)}: pass ({operator.shape[0]}, k) with at least one and at most "
            f"{operator.shape[0]} columns"
        )
    if not bool(torch.isfinite(columns).all()):
        raise InvalidArgument("the basis has entries that are NaN or infinite: look at where it was computed")
    images = torch.empty_like(columns)
    count = columns.shape[1]
    inner = _gram(columns, columns)
    sizes = inner.diagonal().sqrt()
    scaled = inner / (sizes[:, None] * sizes).clamp(min=1e-300)
    if not bool((sizes > 0).all()) or float(torch.linalg.eigvalsh(scaled)[0]) < DEPENDENT:
        raise InvalidArgument("columns of the basis depend on one another: pass independent ones, such as torch.linalg.qr(Q).Q")
    with metered(operator, executor, progress) as meter, meter.stage("products with the basis", count):
        for start, stop in blocks(count, WIDEST_BLOCK):
            images[:, start:stop] = meter.multiply(columns[:, start:stop])
    projected = _gram(columns, images)
    matrix = (projected + projected.T) / 2
    factor = torch.linalg.cholesky(inner)
    half = torch.linalg.solve_triangular(factor, matrix, upper=False)
    whitened = torch.linalg.solve_triangular(factor, half.T, upper=False)
    outside = images.double() - columns.double() @ torch.cholesky_solve(projected, factor).to(columns.device)
    return RayleighQuotient(
        matrix,
        inner,
        torch.linalg.eigvalsh((whitened + whitened.T) / 2).flip(0),
        torch.linalg.vector_norm(outside, dim=0).cpu(),
        meter.products,
    )


def _columns(basis: Any) -> Tensor:
    if isinstance(basis, Solution):
        return basis.eigenvectors.to_tensor()
    if isinstance(basis, TallMatrix):
        return basis.to_tensor()
    if isinstance(basis, np.ndarray):
        basis = torch.from_numpy(basis)
    if not isinstance(basis, Tensor) or not basis.is_floating_point():
        raise InvalidType(f"the basis is a {type(basis).__name__}: pass a tensor or array (D, k) of numbers, or a solution")
    return basis[:, None] if basis.ndim == 1 else basis


def _gram(left: Tensor, right: Tensor) -> Tensor:
    return gram(InMemory(left), InMemory(right), double=True)
