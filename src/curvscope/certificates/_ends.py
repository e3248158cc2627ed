"""Certificates about the ends of a spectrum: largest, smallest, or both, where magnitude says nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from curvscope.certificates._certificate import Certificate
from curvscope.certificates._tail import EndTail
from curvscope.errors import InvalidArgument


@dataclass(frozen=True)
class EndCertificate(Certificate):
    r"""Theorems about approximate pairs at the ends of the spectrum of a Hermitian A: order "LA", "SA" or "BE".

    By Courant and Fischer the (j + 1)-th largest eigenvalue of A is at most the largest Rayleigh quotient outside any j
    vectors, here v_1..v_j: that of [[Theta, R*], [R, B]] of the other pairs and the complement, at most max(theta_{j+1}, above)
    + sqrt 2 ||[r_{j+1} .. r_k]||_F. The j-th largest is at least theta_j - ||[r_1 .. r_j]||_F.

    Attributes:
        order: "LA", "SA" or "BE"; the eigenvalues are in this order.

    Source: Parlett (1998), chapter 10.

    >>> import curvscope as cs
    >>> A = torch.diag(torch.tensor([5.0, -4.0, 3.0, 0.5, 0.1], dtype=torch.float64))
    >>> cs.certify(A, cs.eigsh(A, k=2, which="LA")).certificate.complete
    2
    """

    order: str = "LA"

    @property
    def ends(self) -> EndTail:
        """The bounds of the complement."""
        assert isinstance(self.tail, EndTail)
        return self.tail

    @cached_property
    def above(self) -> float:
        """Largest eigenvalue that the complement may have, noise of the products included."""
        return self.ends.above + self.noise.floor

    @cached_property
    def below(self) -> float:
        """Smallest eigenvalue that the complement may have."""
        return self.ends.below - self.noise.floor

    @cached_property
    def complete(self) -> int:
        """The largest j such that theta_1..theta_j are the j first eigenvalues in the order: none was missed.

        For "BE" the number of pairs, those of the upper end and those of the lower one together, of the ends that are complete
        as far as they go; a part of an end counts as far as it is complete.
        """
        k = len(self.eigenvalues)
        upper = {"LA": k, "SA": 0}.get(self.order, k - k // 2)
        return self._complete(slice(0, upper), 1, self.above) + self._complete(slice(upper, k), -1, -self.below)

    def _complete(self, part: slice, side: int, bound: float) -> int:
        """Of the pairs in one part, those of one end; ``bound``: of the complement, times the side."""
        values, residuals = side * self.eigenvalues[part], self.residuals[part]
        if not len(values):
            return 0
        order = values.argsort(descending=True, stable=True)
        values, residuals = values[order], residuals[order]
        others = torch.ones(len(self.eigenvalues), dtype=torch.bool, device="cpu")
        others[part] = False
        bound = max([bound, *(side * self.eigenvalues[others]).tolist()])
        squares, further = residuals.square(), float(self.residuals[others].square().sum())
        first = squares.cumsum(0)
        left = first[-1] - first + further
        following = torch.cat([values[1:], values.new_full((1,), bound)]).clamp(min=bound)
        # Of the first j, by how much theta_j may exceed the j-th largest eigenvalue where they are no exact Ritz pairs.
        proven = values - first.sqrt() > following + (2 * left).sqrt()
        return int(proven.nonzero().max()) + 1 if bool(proven.any()) else 0

    @cached_property
    def gaps(self) -> Tensor:
        """(k,) lower bounds for the distance of theta_i to every eigenvalue but the one matched with it; 0 if none is known."""
        rho = float(self.rho[-1])
        distances = (self.eigenvalues[:, None] - self.eigenvalues).abs().fill_diagonal_(torch.inf).min(dim=1).values
        outside = torch.maximum(self.eigenvalues - self.above, self.below - self.eigenvalues)
        return torch.minimum(distances - rho, outside - rho).clamp(min=0)

    @property
    def angles(self) -> Tensor:
        """(k,) bounds for the sine of the angle between v_i and its eigenvector: min(1, residual / gap)."""
        return (self.residuals / self.gaps).nan_to_num(nan=1.0, posinf=1.0).clamp(max=1.0)

    @property
    def radii(self) -> Tensor:
        """(k,) with |lambda - theta_i| <= radius for some eigenvalue: the residual, or residual^2 / gap (Kato-Temple)."""
        measured = self.couplings if self.shifts is None else self.shifts
        shifts = self.residuals if measured is None else measured + self.noise.at(self.magnitudes)
        gaps = self.gaps - shifts
        quadratic = torch.where(self.residuals < gaps, self.residuals**2 / gaps, torch.inf)
        return torch.minimum(self.residuals, quadratic + shifts)

    def beyond(self, k: int) -> float:
        """See :meth:`.Certificate.beyond`; for magnitudes only."""
        raise InvalidArgument(f'this is about magnitudes, the pairs have order {self.order!r}: solve with which="LM"')

    def squared_sines(self, k: int) -> Tensor:
        """See :meth:`.Certificate.squared_sines`; for magnitudes only."""
        raise InvalidArgument(f'this is about magnitudes, the pairs have order {self.order!r}: solve with which="LM"')

    def cluster_sine(self, group: list[int]) -> float:
        """Bound for ||sin Theta||_F between the span of a cluster's vectors and of its eigenvectors; at most sqrt(size)."""
        inside = torch.zeros(len(self.eigenvalues), dtype=torch.bool, device="cpu")
        inside[group] = True
        values, rho = self.eigenvalues[inside], float(self.rho[-1])
        gap = float(torch.maximum(values - self.above, self.below - values).min()) - rho
        if not bool(inside.all()):
            gap = min(gap, float((values[:, None] - self.eigenvalues[~inside]).abs().min()) - rho)
        size: float = len(group) ** 0.5
        return size if gap <= 0 else min(size, float(self.residuals[inside].norm()) / gap)
