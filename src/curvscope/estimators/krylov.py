r"""Hutchinson on what a block Krylov space leaves; each product goes where it narrows the estimate more."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from curvscope.estimators.deflation import Deflation
from curvscope.estimators.probing import SKETCH_ROLE, Panel, Probing, panels
from curvscope.solvers.gram_schmidt import split_off
from curvscope.solvers.krylov_basis import first_coupled
from curvscope.solvers.measure import blocks
from curvscope.tall import InMemory

WIDTHS = ((40, 1), (80, 2), (200, 4), (math.inf, 8))
"""Budgets, and columns of the start block up to them: narrow blocks reach further for as many products, wide ones are cheaper
each."""
DEPTH = 4
"""Steps before the space is judged by what it brings: the first ones bring little."""
PILOTS, FEWEST = 8, 3
"""Samples taken first, by which the space is judged, and the fewest, where the budget is small."""
RECENT = 4
"""Columns over which what the space brings is averaged, at least."""
AT_ONCE = 32
"""Samples multiplied at a time."""
PLAIN = 1e-6
"""Part of the norm down to which what is new in a block is told from rounding by Cholesky factors alone."""


class KrylovTrace(Probing):
    r"""Samples w o (P A P w) outside of a block Krylov space Q of the operator, on top of the part inside, which is known.

    A column costs one product, where one of a sketch of the range takes two, for A on the columns that were multiplied comes
    with the recurrence; and the space has the ends of the spectrum. The variance of s samples is at most 2 ||P A P||_F^2 / s.
    What is left, ||P A P w||^2 on average, and what the last steps took off it,

    .. math:: \|A\|_F^2 - \|PAP\|_F^2 = 2 \|AQ\|_F^2 - \|Q^* A Q\|_F^2,

    say whether the next product is better spent on the space or on a sample, of which the rest of the budget would make s. The
    raw products of the signs are kept: a sample is of whatever space there is when it is read.

    Args:
        deflation: see :class:`.Probing`.
        seed: likewise.
        budget: products that may come: a small one takes a narrower block, and fewer samples first.

    Attributes:
        count: samples.
        multiplied: columns of the space.

    Memory: room for two vectors a product in float64, filled by one a column and one a sample; signs are kept as bytes.
    Limits: samples are independent given the space. How many products go to each is decided by the sizes ||P A P w|| of some
        of the same samples, not by their values; a bias from that was too small to be seen (see the tests).
    Source: Chen and Hallman, Krylov-aware stochastic trace estimation, SIMAX 2023 (arXiv 2205.01736), for f(A) = A;
        the balance as in Persson, Cortinovis and Kressner (SIMAX 2022).
    """

    def __init__(self, deflation: Deflation, seed: int, budget: int) -> None:
        super().__init__(deflation, seed)
        self._pilots = max(FEWEST, min(PILOTS, budget // 4))
        self._width = next(width for most, width in WIDTHS if budget <= most)
        device = deflation.operator.device
        # Rows, as they are written one after the other; pages of them that are never written take no memory.
        self._space = torch.empty(budget + self._width, self.size, dtype=torch.float64, device=device)
        self._products = torch.empty(budget, self.size, dtype=torch.float64, device=device)
        self._drawn = torch.empty(budget, self.size, dtype=torch.int8, device=device)
        self.count = self.multiplied = self.filled = 0
        self.action = torch.zeros(0, 0, dtype=torch.float64)  # Q* A Q[:, :multiplied], Q the whole basis
        start = deflation.project(self._random("gaussian", SKETCH_ROLE).columns(0, self._width))
        self._append(self._new(start.T, float(start.norm()))[0])
        self.action = self.action.new_zeros(self.filled, 0)
        self.on_signs = self.on_products = self.action  # Q* w, Q* A w
        self._norm, self._brought = 0.0, [(0, 0.0)]

    @property
    def basis(self) -> Tensor:
        """The space, and after it the columns that were not multiplied yet."""
        return self._space[: self.filled].T

    @property
    def exhausted(self) -> bool:
        """Whether the space holds all directions that there are."""
        return self.multiplied == self.deflation.size

    def advance(self, room: int) -> None:
        """Spend some of at most ``room`` products."""
        if self.count < self._pilots:
            self._sample(min(room, self._pilots - self.count))
        elif self._deeper(room):
            self._deepen(room)
        else:
            self._sample(room)

    def samples(self) -> Iterator[Panel]:
        """All samples there are. Cost: no products; 2 D m (m + s) operations."""
        inside, along = self._projections()
        inside[: self.multiplied] += along
        action = self.action.clone()
        action[self.multiplied :] *= 2  # what the space is coupled to counts on both sides of the diagonal
        action, inside = (part.T.to(self._space.device) for part in (action, inside))
        for rows in panels(self.size):
            Q = self._space[: self.filled, rows]
            known = (Q[: self.multiplied] * (action @ Q)).sum(dim=0) + self.known(rows)
            rest = torch.addmm(self._products[: self.count, rows], inside, Q, alpha=-1)  # P A P w
            yield rows, rest.mul_(self._drawn[: self.count, rows]).add_(known).T

    # --- inside -------------------------------------------------------------------------------------------------------------

    def _deeper(self, room: int) -> bool:
        """Whether a product for the space takes a larger share off the variance than one for a sample."""
        if self.multiplied == self.filled:
            return False
        if len(self._brought) <= DEPTH or room % PILOTS == self._width:  # samples in whole blocks are cheaper
            return True
        (before, less), (now, more) = self._brought[-1 - -(-RECENT // self._width)], self._brought[-1]
        return (more - less) / (now - before) * (self.count + room) > self._left()

    def _left(self) -> float:
        """The mean of ||P A P w||^2 over the samples: ||P A P||_F^2."""
        inside, along = self._projections()
        squares = self._products[: self.count].square().sum(dim=1).cpu()
        squares += inside.square().sum(dim=0) - 2 * (self.on_products * inside).sum(dim=0) - along.square().sum(dim=0)
        return float(squares.mean())

    def _projections(self) -> tuple[Tensor, Tensor]:
        """Q* A P' w with P' = the projector onto the space, and the part of A (w - P' w) in it: P A P w = A w - Q (both)."""
        inside = self.action @ self.on_signs[: self.multiplied]
        return inside, (self.on_products - inside)[: self.multiplied]

    def _deepen(self, room: int) -> None:
        """Multiply the next columns, and take what is new."""
        old, new = self.multiplied, min(self.filled, self.multiplied + min(room, self._width))
        product = self.deflation.multiply(self.basis[:, old:new])
        self._norm = max(self._norm, float(product.norm(dim=0).max()))
        rest, on_basis, on_rest = self._new(product.T, self._norm)
        self._append(rest)
        below = torch.cat([torch.zeros(len(rest), old, dtype=torch.float64), on_rest], dim=1)
        self.action = torch.cat([torch.cat([self.action, on_basis], dim=1), below])
        signs = self._drawn[: self.count].double()
        self.on_signs = torch.cat([self.on_signs, (rest @ signs.T).cpu()])
        self.on_products = torch.cat([self.on_products, (rest @ self._products[: self.count].T).cpu()])
        self.multiplied = new
        self._brought.append((new, float(2 * self.action.square().sum() - self.action[:new].square().sum())))

    def _new(self, product: Tensor, norm: float) -> tuple[Tensor, Tensor, Tensor]:
        """As :func:`.split_off` for rows, the products of the next columns: what is new of them, and their coefficients.

        Two passes of Gram-Schmidt, the first along what the columns are known to be coupled to. What is left of a block is
        made orthonormal by its Cholesky factor after each; where that is near to rounding it is done with care instead.
        """
        basis, noise = self._space[: self.filled], 4 * torch.finfo(self.deflation.operator.dtype).eps * norm
        first = first_coupled(self.action[self.multiplied : self.multiplied + len(product)], noise)
        on_near = product @ basis[first:].T
        rest = torch.addmm(product, on_near, basis[first:], alpha=-1)
        factor, failed = torch.linalg.cholesky_ex((rest @ rest.T).cpu())
        if int(failed) or float(torch.linalg.svdvals(factor)[-1]) <= max(PLAIN * norm, 100 * noise):
            new, on_basis, on_rest = split_off(product.T, InMemory(self.basis), noise=noise)
            return new.T, on_basis, on_rest
        rest = torch.linalg.inv(factor).to(rest.device) @ rest
        on_basis = rest @ basis.T
        rest.addmm_(on_basis, basis, alpha=-1)
        last = torch.linalg.cholesky((rest @ rest.T).cpu())
        on_basis = factor @ on_basis.cpu()
        on_basis[:, first:] += on_near.cpu()
        return torch.linalg.inv(last).to(rest.device) @ rest, on_basis.T, (factor @ last).T

    def _append(self, rows: Tensor) -> None:
        self._space[self.filled : self.filled + len(rows)] = rows
        self.filled += len(rows)

    def _sample(self, count: int) -> None:
        """Take further samples."""
        for start, stop in blocks(count, AT_ONCE):
            signs = self.signs(self.count, self.count + stop - start)
            product = self.multiply(signs)
            place = slice(self.count, self.count + stop - start)
            self._drawn[place], self._products[place] = signs.T, product.T
            self.on_signs = torch.cat([self.on_signs, (self.basis.T @ signs).cpu()], dim=1)
            self.on_products = torch.cat([self.on_products, (self.basis.T @ product).cpu()], dim=1)
            self.count = place.stop
