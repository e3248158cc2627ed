"""What residuals and the norm of the tail prove about eigenvalues, single vectors, clusters and whole spaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from curvscope.certificates._noise import ProductNoise
from curvscope.certificates._second_order import RitzSpan
from curvscope.certificates._tail import TailNorm


@dataclass(frozen=True)
class Certificate:
    r"""Theorems about k approximate pairs (theta_i, v_i) of a Hermitian A, V orthonormal, by descending magnitude.

    For every l <= k, with R_l = A V_l - V_l Theta_l and h_l a bound for the norm of A outside their span, the eigenvalues of A
    can be matched one to one with theta_1..theta_l and the eigenvalues of the block outside so that matched ones differ by at
    most rho_l = sqrt 2 ||R_l||_F: Weyl, on the 2 x 2 block form, whose perturbation [[E, C*], [C, 0]] has ||E||_F^2 +
    ||C||_F^2 = ||R_l||_F^2 (for exact Ritz pairs E = 0). Each statement uses the l that proves most: a few bad pairs at the
    end spoil nothing before them. All hold except with probability ``tail.failure``.

    Attributes:
        eigenvalues: theta, float64 (k,).
        residual_norms: float64 (k,), from fresh products.
        tail: bound for the norm of A on the complement of all k vectors.
        noise: of the products; it is added to every residual and to the tail.
        shifts: |v_i* A v_i - theta_i|, float64 (k,), from fresh products; None: not measured, at most the residuals.
        couplings: ||V* (A v_i - theta_i v_i)||, float64 (k,), from fresh products: rounding, for Ritz pairs. None: not
            measured. With them, what pairs take from one another is of second order (:class:`.RitzSpan`).

    Source: Parlett (1998), chapters 10 and 11; Davis and Kahan (1970).

    >>> import curvscope as cs
    >>> A = torch.diag(torch.tensor([5.0, -4.0, 3.0, 0.5, 0.1], dtype=torch.float64))
    >>> certificate = cs.certify(A, cs.eigsh(A, k=3)).certificate
    >>> certificate.complete, bool(certificate.angles.max() < 1e-12), certificate.clusters()
    (3, True, [[0], [1], [2]])
    """

    eigenvalues: Tensor
    residual_norms: Tensor
    tail: TailNorm
    noise: ProductNoise
    shifts: Tensor | None = None
    couplings: Tensor | None = None

    @cached_property
    def magnitudes(self) -> Tensor:
        """|theta_i|, (k,)."""
        return self.eigenvalues.abs()

    @cached_property
    def residuals(self) -> Tensor:
        """Residual norms with the noise of the products added, (k,)."""
        return self.residual_norms + self.noise.at(self.magnitudes)

    @cached_property
    def heads(self) -> Tensor:
        """||R_l||_F for l = 1..k."""
        return self.residuals.square().cumsum(0).sqrt()

    @cached_property
    def rho(self) -> Tensor:
        """rho_l = sqrt 2 ||R_l||_F for l = 1..k."""
        return 2**0.5 * self.heads

    @cached_property
    def outside(self) -> Tensor:
        """h_l for l = 1..k: max(|theta_{l+1}|, h_k) + sqrt 2 ||[r_{l+1} .. r_k]||_F bounds A outside the first l vectors."""
        squares = self.residuals.square()
        left = torch.cat([squares[1:].flip(0).cumsum(0).flip(0), squares.new_zeros(1)]).sqrt()
        following = torch.cat([self.magnitudes[1:], self.magnitudes.new_zeros(1)])
        return following.clamp(min=self.tail.bound + self.noise.floor) + 2**0.5 * left

    @cached_property
    def complete(self) -> int:
        """The largest j such that theta_1..theta_j, within rho, are the j largest eigenvalues by magnitude: none was missed."""
        needed = _suffix_min(self.outside + 2 * self.rho)
        return int((self.magnitudes > needed).long().cumprod(0).sum())

    @cached_property
    def gaps(self) -> Tensor:
        """(k,) lower bounds for the distance of theta_i to every eigenvalue but the one matched with it; 0 if none is known."""
        distances = (self.eigenvalues[:, None] - self.eigenvalues).abs().fill_diagonal_(torch.inf)
        to_pairs = distances.cummin(dim=1).values - self.rho  # column l: to the other pairs among the first l
        to_rest = self.magnitudes[:, None] - self.outside - self.rho
        return torch.minimum(to_pairs, to_rest).triu().max(dim=1).values.clamp(min=0)

    @property
    def radii(self) -> Tensor:
        """(k,) with |lambda - theta_i| <= radius for some eigenvalue: the residual, or residual^2 / gap (Kato-Temple).

        The second holds for the Rayleigh quotient, which theta_i is up to its shift and the noise of the products. Where
        couplings are known, also :attr:`.RitzSpan.radii`.
        """
        measured = self.couplings if self.shifts is None else self.shifts  # a coupling holds the shift
        shifts = self.residuals if measured is None else measured + self.noise.at(self.magnitudes)
        gaps = self.gaps - shifts
        quadratic = torch.where(self.residuals < gaps, self.residuals**2 / gaps, torch.inf)
        return self._sharper(torch.minimum(self.residuals, quadratic + shifts), lambda span: span.radii)

    @property
    def angles(self) -> Tensor:
        """(k,) bounds for the sine of the angle between v_i and its eigenvector: min(1, residual / gap).

        Where couplings are known, also :attr:`.RitzSpan.squared_angles`, which need no gap larger than the residual.
        """
        return self._sharper(_at_most_one(self.residuals / self.gaps), lambda span: span.squared_angles.sqrt())

    def beyond(self, k: int) -> float:
        """A bound for |lambda_{k+1}|, the largest magnitude outside the top k; 1 <= k.

        By Eckart and Young at most ||A (I - V_k V_k*)|| <= (h^2 + ||R_k||_F^2)^{1/2}, with h for the block outside V_k bounded
        through the best l >= k: the residuals of the first k enter only squared.
        """
        following = self.magnitudes[k : k + 1].sum()  # 0 for the last
        squares = self.residuals.square().cumsum(0)
        between = (squares[k - 1 :] - squares[k - 1]).clamp(min=0).sqrt()
        block = self.outside[k - 1 :].clone()
        block[1:] = block[1:].clamp(min=float(following)) + 2**0.5 * between[1:]
        return float((block.square() + squares[k - 1]).sqrt().min())

    def squared_sines(self, k: int) -> Tensor:
        """(k,) bounds for ||U_2* v_i||^2, U_2 the eigenvectors beyond k: min(1, (r_i / (|theta_i| - beyond))^2).

        Where couplings are known, also :meth:`.RitzSpan.squared_sines`.
        """
        distance = (self.magnitudes[:k] - self.beyond(k)).clamp(min=0)
        linear = _at_most_one((self.residuals[:k] / distance).square())
        return linear if self.couplings is None else torch.minimum(linear, self._span(self.couplings, k).squared_sines(k))

    def space_sine(self, k: int) -> float:
        r"""Bound for ||sin Theta||_F between the first k columns of V and the top-k eigenspace.

        Column by column: sharper than one gap for all. Vacuous, sqrt k, when there is no gap at k.
        """
        return float(self.squared_sines(k).sum().sqrt())

    def _span(self, couplings: Tensor, k: int) -> RitzSpan:
        """The span of the k or more first pairs that lets the least of the top k leak out."""
        distance = self.magnitudes[k - 1] - self.heads[k - 1] - self.outside[k - 1 :]
        size = k + int(torch.where(distance > 0, self.heads[k - 1 :] / distance, torch.inf).argmin())
        if size not in self._spans:
            noisy = (couplings + self.noise.at(self.magnitudes))[:size]
            self._spans[size] = RitzSpan(self.eigenvalues[:size], self.residuals[:size], noisy, float(self.outside[size - 1]))
        return self._spans[size]

    def _sharper(self, bounds: Tensor, of: Callable[[RitzSpan], Tensor]) -> Tensor:
        """The smaller of these bounds for every pair, (k,), and of those of its span, where couplings are known."""
        if self.couplings is None:
            return bounds
        return torch.minimum(bounds, torch.stack([of(self._span(self.couplings, i + 1))[i] for i in range(len(bounds))]))

    @cached_property
    def _spans(self) -> dict[int, RitzSpan]:
        return {}

    def clusters(self) -> list[list[int]]:
        """Groups of pairs whose eigenvalues the residuals cannot separate; inside a group only the span means something.

        Neighbours belong together when their values differ by at most 2 rho_k. Singletons included; by first members.
        """
        order = self.eigenvalues.argsort().tolist()
        groups: list[list[int]] = []
        for place, i in enumerate(order):
            if place and float(self.eigenvalues[i] - self.eigenvalues[order[place - 1]]) <= 2 * float(self.rho[-1]):
                groups[-1].append(i)
            else:
                groups.append([i])
        return sorted((sorted(group) for group in groups), key=lambda group: group[0])

    def cluster_sine(self, group: list[int]) -> float:
        """Bound for ||sin Theta||_F between the span of a cluster's vectors and of its eigenvectors; at most sqrt(size)."""
        inside = torch.zeros(len(self.eigenvalues), dtype=torch.bool, device="cpu")
        inside[group] = True
        values, rho = self.eigenvalues[inside], float(self.rho[-1])
        gap = float(values.abs().min() - self.outside[-1]) - rho
        if not bool(inside.all()):
            gap = min(gap, float((values[:, None] - self.eigenvalues[~inside]).abs().min()) - rho)
        size: float = len(group) ** 0.5
        return size if gap <= 0 else min(size, float(self.residuals[inside].norm()) / gap)


def _suffix_min(values: Tensor) -> Tensor:
    return values.flip(0).cummin(0).values.flip(0)


def _at_most_one(values: Tensor) -> Tensor:
    return values.nan_to_num(nan=1.0, posinf=1.0).clamp(max=1.0)
