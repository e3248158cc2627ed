"""What every block Krylov basis does: grow by blocks within its room, take random directions, adopt new options."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from curvscope.measurement import Meter, Workspace, split_off
from curvscope.sketches import TestMatrix
from curvscope.tall import InMemory, TallMatrix, gram, small_dtype, subtract

HALF = 0.5
"""Share of the residual that is allowed, above which parked directions must be multiplied after all."""
MUCH = 0.05
"""Cosine between a direction that was missed and a residual, above which the residual is multiplied as well."""
PASSES = 3
SPARE = 4
"""Columns beyond what a restart must keep, without which a small basis keeps too little to converge."""
COLUMNS_FOR_EACH = 10
"""Columns by which a basis of the default size grows for each vector that widens its blocks."""


@dataclass(frozen=True)
class KrylovOptions:
    """Options of a block Krylov solve; see :func:`curvscope.eigsh`."""

    k: int
    which: str
    tol: float
    block_size: int
    ncv: int
    max_products: int
    seed: int


def default_columns(size: int, k: int, block_size: int) -> int:
    """Most columns of the basis where nobody asked for a number."""
    return min(size, 3 * k + 20 * block_size)


class KrylovBasis(ABC):
    """Orthonormal columns that grow by blocks: ``filled`` of them, the first ``multiplied`` were multiplied by the operator.

    Attributes:
        basis: the columns.
        norm: the largest norm of a product of a unit vector so far: stands for that of the operator.
        unit: machine epsilon.
        restarts: so far.
        searches: for missed pairs, so far.
        searched: products of these searches.
        shown: what the last of them showed about which pairs; see :func:`.block_krylov.search_for_missed`.
        parked: directions of the residuals of converged pairs, (D, p), orthogonal to the basis: they are not multiplied.
        parts: the residuals of the last :meth:`ritz` along the waiting columns and then the parked ones.
        on_parked: what the products of the multiplied columns have along them, (p, capacity).
    """

    parts: Tensor
    PRICE = 1
    """Products for each column that is multiplied."""
    ASYMMETRY = "Q'AQ on the Krylov basis differs from its transpose"
    """What shows it when products are not those of one Hermitian operator."""

    def __init__(
        self,
        size: int,
        dtype: torch.dtype,
        device: torch.device,
        options: KrylovOptions,
        start: Tensor | None = None,
        *,
        workspace: Workspace | None = None,
    ) -> None:
        self._prepare(size, dtype, device, options, workspace or Workspace())
        self.adopt(options, waiting=0 if start is None else start.shape[1])
        if start is not None:
            self._append(self._new(start)[0])
        self._fill(options.block_size)

    def _prepare(
        self, size: int, dtype: torch.dtype, device: torch.device, options: KrylovOptions, workspace: Workspace
    ) -> None:
        self.size, self.unit, self.workspace = size, torch.finfo(dtype).eps, workspace
        self.basis: TallMatrix = InMemory.empty(size, 0, dtype, device)
        self.action = torch.zeros(0, 0, dtype=small_dtype(dtype), device="cpu")
        self.multiplied = self.filled = self.restarts = self._drawn = 0
        self.searches = self.searched = self.widened_by = 0
        self.norm = 0.0
        self.shown: Any = None
        self.parked = torch.zeros(size, 0, dtype=dtype, device=device)
        self.on_parked = torch.zeros(0, 0, dtype=small_dtype(dtype), device="cpu")
        self._random = TestMatrix("gaussian", size, seed=options.seed, role="krylov", dtype=dtype, device=device)

    @abstractmethod
    def step(self, meter: Meter, note: str = "") -> None:
        """Multiply the waiting columns (as many as budget and room allow) and append the new directions of the products."""

    @abstractmethod
    def ritz(self) -> tuple[Tensor, Any, Tensor]:
        """Values, rotation and residual norms of the wanted pairs, at most k."""

    @abstractmethod
    def restart(self) -> None:
        """Keep the wanted Ritz vectors and half of the others that fit, and continue from the waiting columns."""

    def adopt(self, options: KrylovOptions, *, waiting: int = 0) -> None:
        """Go on with these options: another k, tol or budget, and room for more columns if there was less.

        Room is for ncv columns and a block, and always for k Ritz vectors, the columns that wait to be multiplied and a block.
        """
        self.options = options
        needed = options.k + max(waiting, self.waiting) + 2 * options.block_size + SPARE
        columns = options.ncv + options.block_size
        if options.ncv == default_columns(self.size, options.k, options.block_size):
            columns += COLUMNS_FOR_EACH * self.widened_by
        self.capacity = max(self.filled, min(self.size, max(columns, needed)))
        if self.capacity > self.basis.shape[1]:
            self._enlarge()

    @property
    def waiting(self) -> int:
        """Columns of the basis that were not multiplied yet."""
        return self.filled - self.multiplied

    @property
    def exhausted(self) -> bool:
        """True if every column was multiplied: the basis spans the whole space."""
        return not self.waiting

    @property
    def needs_restart(self) -> bool:
        """True if the products of a block would not fit in; never where the whole space does."""
        return self.capacity < self.size and self.capacity - self.filled < min(self.waiting, self.options.block_size)

    def affordable(self, meter: Meter) -> bool:
        """Return whether the budget has room for one more column."""
        return meter.products + self.PRICE <= self.options.max_products

    def widen(self, block: Tensor) -> None:
        """Let the iteration continue from the directions of a (D, r) block; the newest columns are parked.

        They bring what the start block could not: further copies of multiple eigenvalues, and what it happened to miss.
        """
        self.widened_by = max(self.widened_by, block.shape[1])
        # Residuals grow along what was missed: directions that have much of it must not be parked, and taken from it.
        if bool((gram(InMemory(self.parked), InMemory(block)).norm(dim=0) > MUCH).any()):
            self.unpark()
        waiting = self.basis.between(self.multiplied, self.filled)
        shared = gram(waiting, InMemory(block))
        much = shared.norm(dim=0) > MUCH
        self.park(shared[:, much] if bool(much.any()) else None)
        self.adopt(self.options, waiting=self.waiting + block.shape[1])
        if self.capacity - self.filled < 2 * block.shape[1] + self.options.block_size and self.capacity < self.size:
            self.restart()
        self._append(self._new(self._off_parked(block))[0])

    def park(self, important: Tensor | None = None) -> None:
        """Take the waiting columns out of the basis, but for those combinations that some residuals have most of.

        Products are orthogonalised against parked directions as against the basis, so that residuals stay exact; they come
        back with :meth:`unpark`.

        Args:
            important: (w, r), parts of r residuals along the w waiting columns: r combinations stay. None: none does.
        """
        width, kept = self.waiting, 0
        if not width:
            return
        columns = self.basis.columns(self.multiplied, self.filled).clone()
        rows = self.action[self.multiplied : self.filled, : self.multiplied].clone()
        if important is not None:
            turn = torch.linalg.svd(important, full_matrices=True).U
            kept = min(width, important.shape[1])
            columns, rows = columns @ turn.to(columns.device, columns.dtype), turn.mH @ rows
        self.action[self.multiplied : self.filled] = 0
        self.filled = self.multiplied
        if kept:
            self.basis.write(self.filled, columns[:, :kept])
            self.action[self.filled : self.filled + kept, : self.multiplied] = rows[:kept]
            self.filled += kept
        self.parked = torch.cat([self.parked, columns[:, kept:]], dim=1)
        fresh = torch.zeros(width - kept, self.capacity, dtype=self.action.dtype, device="cpu")
        fresh[:, : self.multiplied] = rows[kept:]
        self.on_parked = torch.cat([self.on_parked, fresh])

    def focus(self, late: list[bool], allowed: list[float]) -> None:
        """Multiply next what the residuals of the pairs that have not converged are made of, no more and no less.

        Args:
            late: which of the pairs of the last :meth:`ritz` have not.
            allowed: residual norms that they may have.
        """
        waiting = self.waiting
        if len(self.parts) > waiting:
            on_parked = self.parts[waiting:].norm(dim=0).tolist()
            needed = any(part > HALF * most for part, most, open_ in zip(on_parked, allowed, late, strict=True) if open_)
        else:
            needed = False
        if needed:
            self.unpark()
        elif waiting > max(self.options.block_size, sum(late)):
            self.park(self.parts[:waiting, torch.tensor(late, device="cpu")])

    def unpark(self) -> None:
        """Let parked directions wait to be multiplied again."""
        if not (count := self.parked.shape[1]):
            return
        columns = self.parked
        self.adopt(self.options, waiting=self.waiting + count)
        if self.capacity - self.filled < count + self.options.block_size and self.capacity < self.size:
            self.restart()
        start, rows = self.filled, self.on_parked
        self._append(columns)
        self.action[start : self.filled, : self.multiplied] = rows[: self.filled - start, : self.multiplied]
        self.parked, self.on_parked = columns[:, :0], rows[:0]

    # --- for those who inherit --------------------------------------------------------------------------------------------

    def _next(self, meter: Meter) -> tuple[int, int]:
        """First and last (exclusive) of the columns to multiply now."""
        room = self.waiting if self.filled == self.size else self.capacity - self.filled
        left = (self.options.max_products - meter.products) // self.PRICE
        return self.multiplied, min(self.filled, self.multiplied + min(room, left))

    def _noise(self, product: Tensor) -> float:
        """The size up to which parts of these products are rounding; takes note of their norms."""
        high = small_dtype(product.dtype)
        if product.shape[1] == 1:
            largest = float(torch.linalg.vector_norm(product, dtype=high))
        else:
            largest = max(float(torch.linalg.vector_norm(column, dtype=high)) for column in product.unbind(1))
        self.norm = max(self.norm, largest)
        return 4 * self.unit * self.norm

    def _most_kept(self) -> int:
        """Return how many pairs a restart keeps: the wanted ones and half of the others, as far as a block then still fits."""
        k = self.options.k
        columns = self.capacity - self.options.block_size
        return min(columns - self.waiting, max(k, (k + columns - self.waiting) // 2))

    def _outside(self) -> Tensor:
        """Return what the products of the multiplied columns have outside of these: along waiting columns, then parked ones."""
        waiting = self.action[self.multiplied : self.filled, : self.multiplied]
        return torch.cat([waiting, self.on_parked[:, : self.multiplied]]) if len(self.on_parked) else waiting

    def _restarted(self, outside: Tensor) -> None:
        """Take note of what the kept vectors of a restart have along parked directions; see :meth:`_outside`."""
        if len(self.on_parked):
            self.on_parked = torch.zeros_like(self.on_parked)
            self.on_parked[:, : outside.shape[1]] = outside[len(outside) - len(self.on_parked) :]

    def _off_parked(self, block: Tensor, of: tuple[int, int] | None = None) -> Tensor:
        """A block without what it has along parked directions; of the products of the columns ``of``, this is noted."""
        if not self.parked.shape[1]:
            return block
        block, parked = block.clone(), InMemory(self.parked)
        total = torch.zeros(self.parked.shape[1], block.shape[1], dtype=self.action.dtype, device="cpu")
        for _ in range(2):
            along = gram(parked, InMemory(block))
            subtract(block, parked, along)
            total += along
        if of is not None:
            self.on_parked[:, of[0] : of[1]] = total
        return block

    @property
    @abstractmethod
    def asymmetry(self) -> float:
        """Return by how much the small matrix differs from one of a single operator, relative to its norm."""

    def _enlarge(self) -> None:
        if self.filled:
            self.basis = self.workspace.widened(self.basis, self.capacity, self.filled)
        else:
            self.basis = self.workspace.basis(self.size, self.capacity, self.basis)
        self.action = enlarged(self.action, self.capacity)
        wider = torch.zeros(len(self.on_parked), self.capacity, dtype=self.action.dtype, device="cpu")
        wider[:, : self.on_parked.shape[1]] = self.on_parked
        self.on_parked = wider

    def _new(self, block: Tensor, *, coupled_from: int = 0, noise: float | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return what a block adds to the filled basis; see :func:`.split_off`."""
        seen = self.basis.leading(self.filled)
        rest, on_basis, on_rest = split_off(block, seen, coupled_from=coupled_from, noise=noise, panels=self.workspace.panels)
        parked = InMemory(self.parked)
        for _ in range(PASSES if self.parked.shape[1] else 0):
            # A small rest is orthogonal to parked directions only to rounding of the whole block.
            along = gram(parked, InMemory(rest))
            if float(along.norm()) <= 10 * self.unit:
                break
            subtract(rest, parked, along)
            rest, further, turn = split_off(rest, seen, noise=0.1, panels=self.workspace.panels)
            on_basis, on_rest = on_basis + further @ on_rest, turn @ on_rest
        return rest, on_basis, on_rest

    def _append(self, block: Tensor) -> None:
        block = block[:, : self.capacity - self.filled]
        self.basis.write(self.filled, block)
        self.filled += block.shape[1]

    def _fill(self, target: int) -> None:
        """Random directions where dependent columns left the newest block too narrow: A does not couple them to the old."""
        while self.filled < min(target, self.capacity):
            missing = min(target, self.capacity) - self.filled
            drawn = self._random.columns(self._drawn, self._drawn + missing)
            added = self._new(self._off_parked(drawn))[0]
            self._drawn += missing
            if not added.shape[1]:  # the basis and the parked directions span the whole space
                return
            self._append(added)


def first_coupled(parts: Tensor, noise: float) -> int:
    """The first column along which a block has more than rounding, from its known coefficients (b, m); m if there is none."""
    coupled = torch.linalg.vector_norm(parts, dim=0) > 10 * noise
    return int(coupled.nonzero()[0]) if bool(coupled.any()) else parts.shape[1]


def enlarged(small: Tensor, capacity: int) -> Tensor:
    """A square matrix in the corner of a larger one of zeros."""
    larger = torch.zeros(capacity, capacity, dtype=small.dtype, device="cpu")
    larger[: len(small), : len(small)] = small
    return larger
