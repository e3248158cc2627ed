r"""Hutchinson on what a block Krylov space leaves; each product goes where it narrows the estimate more."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from curvscope.estimators.deflation import Deflation
from curvscope.estimators.probing import SKETCH_ROLE, Panel, Probing, panels
from curvscope.solvers.gram_schmidt import split_off
from curvscope.tall import InMemory

WIDEST, EACH = 8, 20
"""Columns of the start block: one for every 20 products, at most 8. Narrow blocks reach further for as many products, wide
ones are cheaper each."""
DEPTH = 4
"""Steps before the space is judged by what it brings: the first ones bring little."""
PILOTS, FEWEST = 8, 3
"""Samples taken first, and the fewest, where the budget is small."""
RECENT = 3
"""Steps over which what the space brings is averaged."""


class KrylovTrace(Probing):
    r"""Samples w o (P A P w) outside of a block Krylov space Q of the operator, on top of the part inside, which is known.

    A column costs one product, where one of a sketch of the range takes two, for A on the columns that were multiplied comes
    with the recurrence; and the space has the ends of the spectrum. The variance of s samples is at most 2 ||P A P||_F^2 / s.
    What is left, ||P A P w||^2 on average, and what the last steps took off it,

    .. math:: \|A\|_F^2 - \|PAP\|_F^2 = 2 \|AQ\|_F^2 - \|Q^* A Q\|_F^2,

    say whether the next product is better spent on the space or on a sample. The raw products of the signs are kept: a sample
    is of whatever space there is when it is read.

    Args:
        deflation: see :class:`.Probing`.
        seed: likewise.
        budget: products that may come: a small one takes a narrower block, and fewer samples first.

    Attributes:
        count: samples.
        multiplied: columns of the space.

    Memory: a vector a column, two a sample, in float64.
    Limits: samples are independent given the space. How many products go to each is decided by the sizes ||P A P w|| of the
        same samples, not by their values; a bias from that was too small to be seen (see the tests).
    Source: Chen and Hallman, Krylov-aware stochastic trace estimation, SIMAX 2023 (arXiv 2205.01736), for f(A) = A;
        the balance as in Persson, Cortinovis and Kressner (SIMAX 2022).
    """

    def __init__(self, deflation: Deflation, seed: int, budget: int) -> None:
        super().__init__(deflation, seed)
        empty = torch.zeros(self.size, 0, dtype=torch.float64, device=deflation.operator.device)
        self.drawn, self.products = empty, empty
        self.count = self.multiplied = 0
        self._pilots = max(FEWEST, min(PILOTS, budget // 4))
        self._width = max(1, min(WIDEST, budget // EACH))
        start = deflation.project(self._random("gaussian", SKETCH_ROLE).columns(0, self._width))
        self.basis = split_off(start, InMemory(empty))[0]
        filled = self.basis.shape[1]
        self.action = torch.zeros(filled, 0, dtype=torch.float64)  # Q* A Q[:, :multiplied], Q the whole basis
        self.on_signs = self.on_products = torch.zeros(filled, 0, dtype=torch.float64)  # Q* w, Q* A w
        self._norm, self._brought = 0.0, [(0, 0.0)]

    @property
    def exhausted(self) -> bool:
        """Whether the space holds all directions that there are."""
        return self.multiplied == self.deflation.size

    def advance(self, room: int) -> None:
        """Spend some of at most ``room`` products."""
        if self.count < self._pilots:
            self._sample(min(room, self._pilots - self.count))
        elif self._deeper():
            self._deepen(room)
        else:
            self._sample(min(room, PILOTS))

    def samples(self) -> Iterator[Panel]:
        """All samples there are. Cost: no products; 4 D m (m + s) operations."""
        inside, along = self._projections()
        k, core = self.multiplied, self.action[: self.multiplied].to(self.basis.device)
        action, inside, along = (part.to(self.basis.device) for part in (self.action, inside, along))
        for rows in panels(self.size):
            Q = self.basis[rows, :k]
            known = (Q * (2 * self.basis[rows] @ action - Q @ core)).sum(dim=1) + self.known(rows)
            rest = self.products[rows] - self.basis[rows] @ inside - Q @ along
            yield rows, known[:, None] + self.drawn[rows] * rest

    # --- inside -------------------------------------------------------------------------------------------------------------

    def _deeper(self) -> bool:
        """Whether a product for the space takes a larger share off the variance than one for a sample."""
        if self.multiplied == self.basis.shape[1]:
            return False
        if len(self._brought) <= DEPTH:
            return True
        (before, less), (now, more) = self._brought[-1 - RECENT], self._brought[-1]
        return (more - less) / (now - before) * (self.count + PILOTS) > self._left()

    def _left(self) -> float:
        """The mean of ||P A P w||^2 over the samples: ||P A P||_F^2."""
        inside, along = self._projections()
        squares = self.products.square().sum(dim=0).cpu()
        squares += inside.square().sum(dim=0) - 2 * (self.on_products * inside).sum(dim=0) - along.square().sum(dim=0)
        return float(squares.mean())

    def _projections(self) -> tuple[Tensor, Tensor]:
        """Q* A P' w with P' = the projector onto the space, and the part of A (w - P' w) in it: P A P w = A w - Q (both)."""
        inside = self.action @ self.on_signs[: self.multiplied]
        return inside, (self.on_products - inside)[: self.multiplied]

    def _deepen(self, room: int) -> None:
        """Multiply the next columns, and take what is new."""
        old, new = self.multiplied, min(self.basis.shape[1], self.multiplied + min(room, self._width))
        product = self.deflation.multiply(self.basis[:, old:new])
        self._norm = max(self._norm, float(product.norm(dim=0).max()))
        noise = 4 * torch.finfo(self.deflation.operator.dtype).eps * self._norm
        rest, on_basis, on_rest = split_off(product, InMemory(self.basis), noise=noise)
        self.basis = torch.cat([self.basis, rest], dim=1)
        below = torch.cat([torch.zeros(len(on_rest), old, dtype=torch.float64), on_rest], dim=1)
        self.action = torch.cat([torch.cat([self.action, on_basis], dim=1), below])
        self.on_signs = torch.cat([self.on_signs, (rest.T @ self.drawn).cpu()])
        self.on_products = torch.cat([self.on_products, (rest.T @ self.products).cpu()])
        self.multiplied = new
        self._brought.append((new, float(2 * self.action.square().sum() - self.action[:new].square().sum())))

    def _sample(self, count: int) -> None:
        """Take further samples."""
        signs = self.signs(self.count, self.count + count)
        product = self.multiply(signs)
        self.drawn, self.products = torch.cat([self.drawn, signs], dim=1), torch.cat([self.products, product], dim=1)
        self.on_signs = torch.cat([self.on_signs, (self.basis.T @ signs).cpu()], dim=1)
        self.on_products = torch.cat([self.on_products, (self.basis.T @ product).cpu()], dim=1)
        self.count += count
