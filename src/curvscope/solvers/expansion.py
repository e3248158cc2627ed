"""A basis that grows by blocks, and the operator on it: the state of a block Krylov solve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from curvscope.operators import Operator
from curvscope.sketches import TestMatrix
from curvscope.solvers.gram_schmidt import split_off
from curvscope.solvers.meter import Meter
from curvscope.solvers.ordering import wanted
from curvscope.solvers.workspace import Workspace
from curvscope.tall import TallMatrix

COUNTS = ("multiplied", "filled", "locked", "restarts", "drawn", "norm", "confirmed")
"""What an expansion is, beside its basis and the action of the operator on it."""

STIRRED = 2
"""Random directions added before convergence is believed: one finds a missed copy, two find it in time."""


@dataclass(frozen=True)
class KrylovOptions:
    """How a block Krylov solve is run; see :func:`curvscope.eigsh`."""

    k: int
    which: str
    tol: float
    block_size: int
    ncv: int
    max_products: int
    seed: int


class Expansion:
    """An orthonormal basis Q that grows by blocks, and what A does to it.

    ``filled`` columns are in the basis, the first ``multiplied`` of them have been multiplied by A. Everything known is one
    small matrix, ``action`` = Q* A Q[:, :multiplied]: with m = multiplied, its leading m x m part is the projected matrix (from
    computed products, not from the recurrence), and the rows below it are what the products have outside the first m columns,
    which gives the residuals. The first ``locked`` columns are Ritz vectors whose residuals are rounding: restarts leave them
    where they are, and the Rayleigh-Ritz step is for the columns after them.
    """

    def __init__(self, operator: Operator, options: KrylovOptions, workspace: Workspace, start: Tensor | None = None) -> None:
        self._prepare(operator, options.seed, workspace)
        self.multiplied = self.filled = self.locked = self.restarts = self.drawn = 0
        self.norm = 0.0
        self.confirmed: tuple[str, int] = (options.which, 0)  # which, and how many, pairs stood after stirring
        self.adopt(options, waiting=0 if start is None else start.shape[1])
        if start is not None:
            self._append(self._new(start)[0])
        self._fill(options.block_size)

    def _prepare(self, operator: Operator, seed: int, workspace: Workspace) -> None:
        self.operator, self.workspace = operator, workspace
        self.size, self.unit = operator.shape[0], torch.finfo(operator.dtype).eps
        self.basis: TallMatrix | None = None
        self.action = torch.zeros(0, 0, dtype=torch.float64)
        self._random = TestMatrix("gaussian", self.size, seed=seed, role="krylov", dtype=operator.dtype, device=operator.device)

    def save(self, **facts: Any) -> None:
        """Keep the state in the workspace, with further facts beside it."""
        counts = {name: getattr(self, name) for name in COUNTS}
        self.workspace.save_state(self.basis, counts | facts, {"action": self.action[: self.filled, : self.filled]})

    @classmethod
    def saved(cls, operator: Operator, options: KrylovOptions, workspace: Workspace) -> tuple[Expansion, dict[str, Any]] | None:
        """What :meth:`save` kept in an earlier session and the facts beside it, with these options; None if there is nothing.

        Raises:
            DamagedData: the basis or its state was altered.
        """
        found = workspace.state(operator)
        if found is None:
            return None
        basis, (facts, tensors) = found
        made = cls.__new__(cls)
        made._prepare(operator, options.seed, workspace)
        for name in COUNTS:
            setattr(made, name, facts[name])
        made.confirmed = tuple(facts["confirmed"])
        made.basis, action = basis, tensors["action"]
        made.action = torch.zeros(basis.shape[1], basis.shape[1], dtype=torch.float64)
        made.action[: len(action), : len(action)] = action
        made.adopt(options)
        return made, facts

    def adopt(self, options: KrylovOptions, *, waiting: int = 0) -> None:
        """Go on with these options: another k, tol or budget, and room for more columns if there was less.

        Room is for ncv columns and a block, and always for k Ritz vectors, the columns that wait to be multiplied and a block.
        """
        self.options = options
        needed = options.k + max(waiting, self.waiting) + 2 * options.block_size
        self.capacity = max(self.filled, min(self.size, max(options.ncv + options.block_size, needed)))
        if self.basis is None:
            self.basis = self.workspace.basis(self.size, self.capacity, self.operator)
            self.action = torch.zeros(self.capacity, self.capacity, dtype=torch.float64)
        elif self.capacity > self.basis.shape[1]:
            action = self.action
            self.basis = self.workspace.widened(self.basis, self.capacity, self.filled)
            self.action = torch.zeros(self.capacity, self.capacity, dtype=torch.float64)
            self.action[: len(action), : len(action)] = action

    @property
    def waiting(self) -> int:
        """Columns of the basis that were not multiplied yet."""
        return self.filled - self.multiplied

    @property
    def exhausted(self) -> bool:
        """Whether every column was multiplied: the basis spans the whole space."""
        return not self.waiting

    @property
    def crowded(self) -> bool:
        """Whether the products of a block would not fit in."""
        return self.filled < self.size and self.capacity - self.filled < min(self.waiting, self.options.block_size)

    @property
    def asymmetry(self) -> float:
        """||B - B*||_F / ||B||_F of the projected matrix; rounding, unless the operator is not symmetric."""
        active = self._active()
        norm = float(active.norm())
        return float((active - active.T).norm()) / norm if norm else 0.0

    def step(self, meter: Meter, note: str = "") -> None:
        """Multiply the waiting columns (as many as budget and room allow) and append the new directions of the products."""
        old, before = self.multiplied, self.filled
        room = self.waiting if before == self.size else self.capacity - before
        new = min(before, old + min(room, self.options.max_products - meter.products))
        product = meter.multiply(self.basis.columns(old, new), note)
        self.norm = max(self.norm, *(float(column.double().norm()) for column in product.T))  # D entries in double at a time
        noise = 4 * self.unit * self.norm
        rest, on_basis, on_rest = self._new(product, coupled_from=self._coupled_from(old, new, noise), noise=noise)
        self._append(rest)
        self.action[:before, old:new] = on_basis
        self.action[before : self.filled, old:new] = on_rest[: self.filled - before]
        self.multiplied = new
        self._fill(new + self.options.block_size)

    def stir(self) -> None:
        """Add random directions to the newest columns, where they fit.

        They bring what the start block could not: further copies of multiple eigenvalues, and what it happened to miss.
        """
        if self.options.k + self.waiting + STIRRED + self.options.block_size > self.capacity:
            return
        if self.capacity - self.filled < STIRRED + self.options.block_size and self.filled < self.size:
            self.restart()
        self._fill(self.filled + STIRRED)

    def ritz(self) -> tuple[Tensor, Tensor, Tensor]:
        """Values, rotation (m x k: the vectors are Q[:, :m] times it) and residual norms of the wanted pairs, at most k."""
        values, rotation = self._eigh()
        chosen = wanted(values, self.options.k, self.options.which)
        residuals = self._outside() @ rotation[:, chosen]
        return values[chosen], rotation[:, chosen], residuals.norm(dim=0)

    def restart(self) -> None:
        """Keep the wanted Ritz vectors and half of the others that fit, lock what is exact, go on from the waiting columns."""
        width = self.waiting
        newest = self.basis.columns(self.multiplied, self.filled).clone()
        values, rotation, outside = self._kept(self.capacity - width - self.options.block_size)
        self.basis = self.workspace.rotated(self.basis, rotation[self.locked :, self.locked :], self.locked)
        kept = len(values)
        self.action.zero_()
        self.action[:kept, :kept] = torch.diag(values)
        self.locked = int((outside.norm(dim=0) == 0).long().cumprod(0).sum())
        self.action[kept : kept + width, :kept] = outside
        self.multiplied = self.filled = kept
        self._append(newest)
        self.restarts += 1

    # --- inside -----------------------------------------------------------------------------------------------------------

    def _kept(self, most: int) -> tuple[Tensor, Tensor, Tensor]:
        """Values, rotation and outside parts of the pairs that a restart keeps: the locked ones, those to lock now, others.

        To be locked a pair must be wanted, and its residual at most u ||A||; it then counts as 0. If a locked pair is no longer
        wanted, as a larger one has come up, all are unlocked first.
        """
        k = self.options.k
        values, rotation = self._eigh()
        best = wanted(values, k, self.options.which)
        if int((best < self.locked).sum()) < self.locked:
            self.locked = 0
            values, rotation = self._eigh()
            best = wanted(values, k, self.options.which)
        outside = self._outside() @ rotation
        exact = torch.zeros(len(values), dtype=torch.bool)
        exact[best] = outside[:, best].norm(dim=0) <= self.unit * self.norm
        outside[:, exact] = 0
        chosen = wanted(values, min(most, max(k, (k + self.options.ncv - self.waiting) // 2)), self.options.which)
        first = chosen[chosen < self.locked].sort().values  # stay where they are
        later = chosen[chosen >= self.locked]
        chosen = torch.cat([first, later[exact[later]], later[~exact[later]]])
        return values[chosen], rotation[:, chosen], outside[:, chosen]

    def _outside(self) -> Tensor:
        return self.action[self.multiplied : self.filled, : self.multiplied]

    def _active(self) -> Tensor:
        """The projected matrix of the columns that are not locked."""
        return self.action[self.locked : self.multiplied, self.locked : self.multiplied]

    def _eigh(self) -> tuple[Tensor, Tensor]:
        """Ritz values and rotation (m x m), the locked ones first."""
        active, locked = self._active(), self.locked
        values = self.action.diagonal()[: self.multiplied].clone()
        rotation = torch.eye(self.multiplied, dtype=torch.float64)
        values[locked:], rotation[locked:, locked:] = torch.linalg.eigh((active + active.T) / 2)
        return values, rotation

    def _coupled_from(self, old: int, new: int, noise: float) -> int:
        """The first column that products of columns old..new have more than rounding along: A is symmetric, so it is known."""
        parts = self.action[old:new, :old].norm(dim=0) > 10 * noise
        return int(parts.nonzero()[0]) if bool(parts.any()) else old

    def _new(self, block: Tensor, *, coupled_from: int = 0, noise: float | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """What a block adds to the filled basis; see :func:`.split_off`."""
        return split_off(block, self.basis.leading(self.filled), coupled_from=coupled_from, noise=noise)

    def _append(self, block: Tensor) -> None:
        block = block[:, : self.capacity - self.filled]
        self.basis.write(self.filled, block)
        self.filled += block.shape[1]

    def _fill(self, target: int) -> None:
        """Random directions where dependent columns left the newest block too narrow: A does not couple them to the old."""
        while self.filled < min(target, self.capacity):
            missing = min(target, self.capacity) - self.filled
            self._append(self._new(self._random.columns(self.drawn, self.drawn + missing))[0])
            self.drawn += missing
