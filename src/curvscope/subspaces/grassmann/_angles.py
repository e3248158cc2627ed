"""Principal angles between two subspaces, small and large ones equally right."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.subspaces._given import as_pair
from curvscope.subspaces._ranking import Mask, Ranking
from curvscope.subspaces._spaces import Basis, columns
from curvscope.system import checked
from curvscope.tall import TallMatrix, gram

PANEL_BYTES = 1 << 25


@checked
def angles(first: Basis | Mask, second: Basis | Mask) -> Tensor:
    r"""The principal angles between two subspaces, ascending; min(k1, k2) of them, float64 in [0, pi/2].

    Cosines are the singular values of Q1'Q2, sines those of (I - Q1 Q1') Q2; each angle is taken from whichever of the two
    determines it: right to about 1e-16 near 0 as well as near pi/2, where arccos alone loses half of the digits.

    The angles are those between the *spans*: columns in float32 are orthonormal to 1e-7 only, which is corrected for.

    Args:
        first: orthonormal columns (D, k1): a tensor, a tall matrix in memory or stored, a solution; or a mask, that is a
            coordinate subspace (``ranking.first(k)``, or a vector of booleans).
        second: likewise, (D, k2).

    Cost: two Gram matrices and one between them, 2 D (k1^2 + k2^2 + k1 k2) operations; where there are angles below pi/4, a
        QR factorisation by panels on top, 4 D k2^2. Memory: a panel and a few k x k matrices, for stored columns too. Nothing
        but counting for two masks.

    Raises:
        InvalidArgument: different D, columns that are not orthonormal to 1e-3.
    Source: Bjorck and Golub, Math. Comp. 27 (1973); Knyazev and Argentati, SISC 23 (2002).

    >>> Q = torch.eye(3, dtype=torch.float64)
    >>> tilted = torch.tensor([[1.0], [1e-12], [0.0]], dtype=torch.float64)
    >>> [float(f"{angle:.3e}") for angle in (*angles(Q[:, :1], tilted), *angles(Q[:, :2], Q[:, 1:]))]
    [1e-12, 0.0, 1.571]
    """
    first, second = as_pair(first, second)
    larger, smaller = sorted((_space(first), _space(second)), key=lambda space: space.dimension, reverse=True)
    if larger.size != smaller.size:
        raise InvalidArgument(f"the spaces lie in dimensions {larger.size} and {smaller.size}: pass the same parameters")
    if isinstance(larger, _Coordinates) and isinstance(smaller, _Coordinates):
        shared = int(torch.isin(smaller.index, larger.index).sum())
        right = torch.full((smaller.dimension - shared,), math.pi / 2, dtype=torch.float64, device="cpu")
        return torch.cat([torch.zeros(shared, dtype=torch.float64, device="cpu"), right])
    cross = _cross(larger, smaller)
    cosines = torch.linalg.svdvals(cross).clamp(max=1.0)
    found = cosines.acos()
    small = cosines.square() > 0.5
    if bool(small.any()):
        sines = torch.linalg.svdvals(_outside(larger, smaller, cross)).flip(0).clamp(max=1.0)
        found = torch.where(small, sines.asin(), found)
    angles: Tensor = found.sort().values
    return angles


class _Space(ABC):
    """A subspace as seen here: its dimension, and orthonormal columns panel by panel."""

    size: int
    dtype: torch.dtype

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Number of columns."""

    @abstractmethod
    def panel(self, rows: slice) -> Tensor:
        """Rows of the orthonormal columns, double precision on the CPU."""


@dataclass
class _Coordinates(_Space):
    index: Tensor
    size: int
    dtype: torch.dtype = torch.float64

    @property
    def dimension(self) -> int:
        return len(self.index)

    def panel(self, rows: slice) -> Tensor:
        panel = torch.zeros(rows.stop - rows.start, self.dimension, dtype=torch.float64, device="cpu")
        inside = ((self.index >= rows.start) & (self.index < rows.stop)).nonzero().flatten()
        panel[self.index[inside] - rows.start, inside] = 1
        return panel


class _Span(_Space):
    """Columns made orthonormal to double rounding by a small triangular factor."""

    def __init__(self, vectors: TallMatrix) -> None:
        self.vectors = vectors
        self.size = vectors.shape[0]
        overlaps = gram(vectors, vectors, double=True)
        defect = float((overlaps - torch.eye(self.dimension, dtype=overlaps.dtype, device="cpu")).abs().max())
        if not defect <= 1e-3:
            raise InvalidArgument(
                f"the columns are not orthonormal, max |V'V - I| = {defect:.1e}: pass torch.linalg.qr(V).Q where columns are "
                "meant, a vector (D,) of booleans where a mask is"
            )
        self.dtype = overlaps.dtype
        # V R^-1 with V'V = R'R: near the identity, so that one round is right to rounding
        factor = torch.linalg.cholesky(overlaps).mH
        self.whitening = torch.linalg.solve_triangular(
            factor, torch.eye(self.dimension, dtype=self.dtype, device="cpu"), upper=True
        )

    @property
    def dimension(self) -> int:
        return self.vectors.shape[1]

    def panel(self, rows: slice) -> Tensor:
        found: Tensor = self.vectors.rows(rows).to("cpu", self.dtype) @ self.whitening
        return found

    def rows(self, index: Tensor) -> Tensor:
        found: Tensor = self.vectors.rows(index.to(self.vectors.device)).to("cpu", self.dtype) @ self.whitening
        return found


def _space(given: Basis | Mask) -> _Coordinates | _Span:
    match given:
        case Mask():
            if not given.count:
                raise InvalidArgument("the mask is empty: choose one parameter or more")
            return _Coordinates(given.index, given.size)
        case Ranking():
            raise InvalidType("a ranking is a mask for every k: pass ranking.first(k)")
    return _Span(columns(given))


def _cross(larger: _Coordinates | _Span, smaller: _Coordinates | _Span) -> Tensor:
    """Q1* Q2 for the orthonormal columns of both, (k1, k2)."""
    match larger, smaller:
        case _Span(), _Span():
            between = gram(larger.vectors, smaller.vectors, double=True).to(larger.dtype)
            product: Tensor = larger.whitening.mH @ between @ smaller.whitening
            return product
        case _Coordinates(), _Span():
            return smaller.rows(larger.index)
        case _Span(), _Coordinates():
            return larger.rows(smaller.index).mH
    raise AssertionError("two masks are counted, not multiplied")


def _outside(larger: _Space, smaller: _Space, cross: Tensor) -> Tensor:
    """The triangular factor of (I - P1) Q2, panel by panel: its singular values are the sines."""
    factor = cross[:0]
    for rows in _panels(larger.size, larger.dimension + smaller.dimension):
        rest = smaller.panel(rows) - larger.panel(rows).to(cross.dtype) @ cross
        factor = torch.linalg.qr(torch.cat([factor, rest]), mode="r").R
    return factor


def _panels(size: int, width: int) -> Iterator[slice]:
    step = max(width, PANEL_BYTES // (8 * width))
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))
