"""Sharper statements for Ritz pairs: inside their span they do not mix at first order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class RitzSpan:
    r"""Proven statements about l pairs (theta_i, v_i) whose couplings e_i = ||V* (A v_i - theta_i v_i)|| are small.

    Write A as [[Theta + E, C*], [C, B]] on the span and its complement, ||B|| <= h, ||C|| <= c, columns of C at most r_i. An
    eigenvector (a, b) with eigenvalue lambda beyond h has ||b|| <= c / (|lambda| - h), and then

    .. math:: |a_i| \, |\theta_i - \lambda| \le r_i \|b\| + e_i :

    what neighbours in the span take from one another is of second order in the residuals, over their distance.

    Attributes:
        eigenvalues: theta, float64 (l,), by descending magnitude.
        residuals: r, (l,), with the noise of the products.
        couplings: e, (l,), with the noise of the products.
        outside: h.

    Source: Parlett (1998), chapter 11; for the eigenvalues C.-K. Li and R.-C. Li, Linear Algebra Appl. 395 (2005), theorem 2.
    """

    eigenvalues: Tensor
    residuals: Tensor
    couplings: Tensor
    outside: float

    @cached_property
    def radii(self) -> Tensor:
        """(l,) with |lambda_i - theta_i| <= radius; lambda_i is the eigenvalue matched with theta_i, in algebraic order."""
        inside, across = float(self.couplings.norm()), float(self.residuals.norm())
        room = self.eigenvalues.abs() - inside - self.outside
        quadratic = torch.where(room > 0, inside + across**2 / room, torch.inf)
        return quadratic.clamp(max=2**0.5 * across)

    @cached_property
    def rest(self) -> float:
        """A bound for the magnitude of the eigenvalues that are matched with none of theta."""
        return self.outside + 2**0.5 * float(self.residuals.norm())

    @cached_property
    def squares(self) -> Tensor:
        """(l, l) bounds for |<v_i, u_j>|^2, u_j the eigenvector matched with theta_j; infinite where nothing is known."""
        away = self.eigenvalues.abs() - self.radii - self.outside
        reach = torch.where(away > 0, self.residuals.norm() / away, 1.0).clamp(max=1.0)  # ||b|| of u_j
        distances = (self.eigenvalues[:, None] - self.eigenvalues).abs() - self.radii
        mixed = self.residuals[:, None] * reach + self.couplings[:, None]
        return torch.where(distances > 0, mixed / distances, torch.inf).square()

    @cached_property
    def squares_outside(self) -> Tensor:
        """(l,) bounds for the squared mass of v_i on all eigenvectors matched with none of theta."""
        distances = self.eigenvalues.abs() - self.rest
        return torch.where(distances > 0, self.residuals / distances, torch.inf).square()

    def squared_sines(self, k: int) -> Tensor:
        """(k,) bounds for the squared mass of v_i, i <= k, on the eigenvectors beyond the top k by magnitude; at most 1."""
        magnitudes, radii = self.eigenvalues.abs(), self.radii
        beyond = max([self.rest, *(magnitudes + radii)[k:].tolist()])
        if float((magnitudes - radii)[:k].min()) <= beyond:  # which ones are the top k is not known
            return torch.ones(k, dtype=torch.float64, device="cpu")
        return (self.squares[:k, k:].sum(dim=1) + self.squares_outside[:k]).clamp(max=1.0)

    @cached_property
    def squared_angles(self) -> Tensor:
        """(l,) bounds for the squared sine of the angle between v_i and u_i; at most 1."""
        others = self.squares.clone().fill_diagonal_(0).sum(dim=1)
        # u_i is one vector only if no other eigenvalue can be matched with theta_i
        alone = (self.eigenvalues[:, None] - self.eigenvalues).abs() - self.radii - self.radii[:, None]
        known = alone.fill_diagonal_(1).min(dim=1).values > 0
        return torch.where(known, others + self.squares_outside, 1.0).clamp(max=1.0)
