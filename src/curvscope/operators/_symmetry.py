"""Whether a matrix equals its adjoint: one rule for matrices with entries, and one for operators known only by products.

- Dense and sparse matrices are compared entry by entry when the operator is made (:func:`asymmetry_of_entries`).
- For operators known only by products, ``as_operator(A, hermitian=...)`` says it. Where it was not said, a square operator is
  assumed to be Hermitian (``operator.assumed_hermitian``), and :class:`ProductsCheck` compares x* (A y) with (A x)* y for the
  first vectors that are multiplied anyway.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from curvscope.errors import NotHermitian

ENTRY_ROUNDINGS = 10
"""Rounding units, relative to the largest entry, by which entries of a Hermitian matrix may differ."""
ROWS = 1 << 10
VECTORS_TO_COMPARE = 4
"""Vectors after which products have shown the symmetry: two random ones suffice, a recurrence may need a few more."""


def asymmetry_of_entries(matrix: Tensor) -> float:
    """The largest entry of |A - A*| over the largest of |A|; infinite for a matrix that is not square.

    >>> asymmetry_of_entries(torch.tensor([[0.0, 2.0], [1.0, 0.0]]))
    0.5
    """
    m, n = matrix.shape
    if m != n:
        return math.inf
    largest = difference = 0.0
    for start in range(0, m, ROWS):
        rows = slice(start, start + ROWS)
        largest = max(largest, float(matrix[rows].abs().max()))
        difference = max(difference, float((matrix[rows] - matrix[:, rows].mH).abs().max()))
    return difference / largest if difference else 0.0


def is_symmetric(asymmetry: float, dtype: torch.dtype) -> bool:
    """Return whether an asymmetry of entries is rounding in this dtype."""
    return asymmetry <= ENTRY_ROUNDINGS * torch.finfo(dtype).eps


def allowed_asymmetry(size: int, unit: float) -> float:
    """Return what the rounding of products and sums over D entries may show: generous, as products of networks round too."""
    return float(max(10 * unit**0.5, 10 * unit * size**0.5))


def asymmetry_of_products(directions: Tensor, products: Tensor, *, least: float = 0.0) -> float:
    """||C - C*||_F / ||C||_F for C = X* A X; about ||A - A*||_F / ||A||_F for random X of two or more columns.

    ``least``: taken for ||C||_F where that is less.
    """
    core = directions.mH @ products
    size = max(least, float(torch.linalg.vector_norm(core)))
    return float(torch.linalg.vector_norm(core - core.mH)) / size if size else 0.0


class ProductsCheck:
    """Looks at the first products of an operator that was assumed to be Hermitian.

    Args:
        hermitian: what was assumed; False: nothing is looked at.
        size: D.
        rounding: of the products.

    Cost: no products; up to 8 vectors until 4 were seen.
    """

    def __init__(self, *, hermitian: bool, size: int, rounding: float) -> None:
        self.active, self._size, self._rounding = hermitian, size, rounding
        self._seen: list[tuple[Tensor, Tensor]] = []

    def look(self, block: Tensor, product: Tensor, scale: Callable[[], float] = lambda: 0.0) -> None:
        """Take in a block and its product.

        Args:
            block: that was multiplied.
            product: of it.
            scale: gives the norm of the product of a random unit vector. It is called where the vectors show an asymmetry:
                those of a null space have products that are rounding, which is symmetric in nothing.

        Raises:
            NotHermitian: they show that the operator is not Hermitian.
        """
        if not self.active or not block.shape[1]:
            return
        self._seen.append((block[:, :VECTORS_TO_COMPARE].clone(), product[:, :VECTORS_TO_COMPARE].clone()))
        count = sum(directions.shape[1] for directions, _ in self._seen)
        if count < 2:
            return
        directions, products = (torch.cat(parts, dim=1) for parts in zip(*self._seen, strict=True))
        found = asymmetry_of_products(directions, products)
        if found > allowed_asymmetry(self._size, self._rounding):
            least = scale() * float(torch.linalg.vector_norm(directions, dim=0).square().max())
            found = asymmetry_of_products(directions, products, least=least)
        raise_if_asymmetric(found, self._size, self._rounding, f"X'AX of {count} vectors differs from its adjoint")
        if count >= VECTORS_TO_COMPARE:
            self.active, self._seen = False, []


def raise_if_asymmetric(measured: float, size: int, rounding: float, seen: str) -> None:
    """Raise NotHermitian if an asymmetry, relative to the norm, is more than rounding; ``seen`` says in what it showed."""
    allowed = allowed_asymmetry(size, rounding)
    if measured > allowed:
        raise NotHermitian(
            f"the operator is not Hermitian: {seen} by {measured:.1e} of its norm (rounding explains {allowed:.0e}); use svds "
            "or ssvd for singular values, or (A + A*)/2 if that is meant",
            measured,
        )
