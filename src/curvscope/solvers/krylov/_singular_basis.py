"""Two bases that grow in turn, and the operator between them: the state of a block Krylov solve for singular triplets."""

from __future__ import annotations

import torch
from torch import Tensor

from curvscope.measurement import Meter, split_off
from curvscope.operators.base import Operator
from curvscope.sketches import TestMatrix
from curvscope.solvers.krylov._basis import KrylovBasis, KrylovOptions, enlarged, first_coupled
from curvscope.tall import InMemory, TallMatrix, small_dtype, small_svd


class Bidiagonalization(KrylovBasis):
    """Orthonormal Q (n x filled) and P (m x multiplied) with A Q_c in the span of P, c = multiplied columns on either side.

    Known are ``forward`` = P* A Q_c (c x c) and ``action`` = Q* A* P (filled x c), from computed products: its first c rows
    are the adjoint of the first up to rounding, those below are what A* P has outside Q_c and give the residuals.
    Restricted to the two spans A is a small matrix, whose singular triplets are right to rounding of ||A||: A* A, which would
    lose half the digits, is never formed.

    Args:
        operator: m x n; where n > m, products with A stand for those with its adjoint (see :class:`.Meter`).
        options: as for eigenpairs; ``which`` says nothing.
    """

    PRICE = 2
    ASYMMETRY = "products with A* are not those of the adjoint of A: P'AQ on the Krylov bases differs"

    def __init__(self, operator: Operator, options: KrylovOptions) -> None:
        m, n = max(operator.shape), min(operator.shape)
        self.left: TallMatrix = InMemory.empty(m, 0, operator.dtype, operator.device)
        self._random_left = TestMatrix(
            "gaussian", m, seed=options.seed, role="krylov left", dtype=operator.dtype, device=operator.device
        )
        self._drawn_left = 0
        self.forward = torch.zeros(0, 0, dtype=small_dtype(operator.dtype), device="cpu")
        super().__init__(n, operator.dtype, operator.device, options)

    @property
    def asymmetry(self) -> float:
        """||P* A Q - (Q* A* P)*||_F / ||P* A Q||_F: rounding, unless the products with A* are not those of its adjoint."""
        c = self.multiplied
        forward, backward = self.forward[:c, :c], self.action[:c, :c].mH
        norm = float(forward.norm())
        return float((forward - backward).norm()) / norm if norm else 0.0

    def step(self, meter: Meter, note: str = "") -> None:
        """Multiply the waiting columns by A, the new directions of these products by A*, and append what that adds to Q."""
        (old, new), before = self._next(meter), self.filled
        product = meter.multiply(self.basis.columns(old, new), note)
        noise = self._noise(product)
        first = first_coupled(self.action[old:new, :old], noise)
        rest, on_left, on_rest = split_off(product, self.left.leading(old), coupled_from=first, noise=noise)
        self._append_left(rest, new)
        self.forward[:old, old:new] = on_left
        self.forward[old : old + len(on_rest), old:new] = on_rest

        product = meter.multiply_adjoint(self.left.columns(old, new), note)
        noise = self._noise(product)
        product = self._off_parked(product, (old, new))
        rest, on_basis, on_rest = self._new(product, coupled_from=old, noise=noise)
        self._append(rest)
        self.action[:before, old:new] = on_basis
        self.action[before : self.filled, old:new] = on_rest[: self.filled - before]
        self.multiplied = new
        self._fill(new + self.options.block_size)

    def ritz(self) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        """Singular values in descending order, rotations of P and of Q, and ||A* u - s v||; at most k of each."""
        left, values, right = self._svd()
        k = self.options.k
        self.parts = self._outside() @ left[:, :k]
        return values[:k], (left[:, :k], right[:, :k]), self.parts.norm(dim=0)

    def restart(self) -> None:
        """Keep the wanted triplets and half of the others that fit, and continue from the waiting columns."""
        c, kept, width = self.multiplied, self._most_kept(), self.waiting
        left, values, right = (part[..., :kept] for part in self._svd())
        kept = len(values)
        outside = self._outside() @ left
        newest = self.basis.columns(c, self.filled).clone()
        self.basis.rotate(right)
        self.left.rotate(left)
        self.forward.zero_()
        self.action.zero_()
        diagonal = torch.diag(values).to(left.dtype)
        self.forward[:kept, :kept] = diagonal
        self.action[:kept, :kept] = diagonal
        self.action[kept : kept + width, :kept] = outside[:width]
        self._restarted(outside)
        self.multiplied = self.filled = kept
        self._append(newest)
        self.restarts += 1

    # --- inside -----------------------------------------------------------------------------------------------------------

    def _svd(self) -> tuple[Tensor, Tensor, Tensor]:
        c = self.multiplied
        left, values, right = small_svd(self.forward[:c, :c])
        return left, values, right.mH

    def _append_left(self, block: Tensor, target: int) -> None:
        """Columns from ``multiplied`` to ``target`` of P: the block, and random ones where its directions were dependent."""
        filled = self.multiplied
        self.left.write(filled, block)
        filled += block.shape[1]
        while filled < target:
            missing = target - filled
            drawn = self._random_left.columns(self._drawn_left, self._drawn_left + missing)
            fresh = split_off(drawn, self.left.leading(filled))[0]
            self.left.write(filled, fresh)
            filled += fresh.shape[1]
            self._drawn_left += missing

    def _enlarge(self) -> None:
        super()._enlarge()
        self.left = self.workspace.widened(self.left, self.capacity, self.multiplied)
        self.forward = enlarged(self.forward, self.capacity)
