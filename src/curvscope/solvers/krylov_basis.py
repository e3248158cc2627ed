"""What every block Krylov basis does: grow by blocks within its room, take random directions, adopt new options."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.sketches import TestMatrix
from curvscope.solvers.gram_schmidt import split_off
from curvscope.solvers.meter import Meter
from curvscope.solvers.width import default_width
from curvscope.solvers.workspace import Workspace
from curvscope.tall import InMemory, TallMatrix, small_dtype

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


def krylov_options(
    size: int,
    k: int,
    *,
    which: str,
    tol: float,
    block_size: int | None,
    ncv: int | None,
    max_products: int,
    seed: int,
    spent: int = 0,
) -> KrylovOptions:
    """The options with their defaults filled in.

    Raises:
        InvalidArgument: sizes that cannot work.
    """
    width = default_width(k) if block_size is None else block_size
    if width < 1:
        raise InvalidArgument(f"block_size={block_size}: choose at least 1")
    width = min(size, width)
    if max_products < k - spent:
        raise InvalidArgument(
            f"max_products={max_products} is less than k={k}: each pair needs at least one product, better two"
        )
    columns = min(size, 3 * k + 20 * width) if ncv is None else ncv
    if columns < min(size, k + 2 * width):
        raise InvalidArgument(f"ncv={ncv}: choose at least k + 2 block_size = {min(size, k + 2 * width)}")
    return KrylovOptions(k, which, tol, width, min(columns, size, max_products + spent), max_products, seed)


class KrylovBasis(ABC):
    """Orthonormal columns that grow by blocks: ``filled`` of them, the first ``multiplied`` were multiplied by the operator.

    Attributes:
        basis: the columns.
        norm: the largest norm of a product of a unit vector so far: stands for that of the operator.
        unit: machine epsilon.
        restarts: so far.
        confirmed: for which ``which``, and how many, pairs stood after stirring.
    """

    PRICE = 1
    """Products for each column that is multiplied."""

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
        self.action = torch.zeros(0, 0, dtype=small_dtype(dtype))
        self.multiplied = self.filled = self.restarts = self._drawn = 0
        self.norm = 0.0
        self.confirmed: tuple[str, int] = (options.which, 0)
        self._random = TestMatrix("gaussian", size, seed=options.seed, role="krylov", dtype=dtype, device=device)

    @abstractmethod
    def step(self, meter: Meter, note: str = "") -> None:
        """Multiply the waiting columns (as many as budget and room allow) and append the new directions of the products."""

    @abstractmethod
    def ritz(self) -> tuple[Tensor, Any, Tensor]:
        """Values, rotation and residual norms of the wanted pairs, at most k."""

    @abstractmethod
    def restart(self) -> None:
        """Keep the wanted Ritz vectors and half of the others that fit, and go on from the waiting columns."""

    def adopt(self, options: KrylovOptions, *, waiting: int = 0) -> None:
        """Go on with these options: another k, tol or budget, and room for more columns if there was less.

        Room is for ncv columns and a block, and always for k Ritz vectors, the columns that wait to be multiplied and a block.
        """
        self.options = options
        needed = options.k + max(waiting, self.waiting) + 2 * options.block_size
        self.capacity = max(self.filled, min(self.size, max(options.ncv + options.block_size, needed)))
        if self.capacity > self.basis.shape[1]:
            self._enlarge()

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
        """Whether the products of a block would not fit in; never where the whole space does."""
        return self.capacity < self.size and self.capacity - self.filled < min(self.waiting, self.options.block_size)

    def affordable(self, meter: Meter) -> bool:
        """Whether the budget has room for one more column."""
        return meter.products + self.PRICE <= self.options.max_products

    def stir(self) -> None:
        """Add random directions to the newest columns, where they fit.

        They bring what the start block could not: further copies of multiple eigenvalues, and what it happened to miss.
        """
        if self.options.k + self.waiting + STIRRED + self.options.block_size > self.capacity:
            return
        if self.capacity - self.filled < STIRRED + self.options.block_size and self.filled < self.size:
            self.restart()
        self._fill(self.filled + STIRRED)

    # --- for those who inherit --------------------------------------------------------------------------------------------

    def _next(self, meter: Meter) -> tuple[int, int]:
        """First and last (exclusive) of the columns to multiply now."""
        room = self.waiting if self.filled == self.size else self.capacity - self.filled
        left = (self.options.max_products - meter.products) // self.PRICE
        return self.multiplied, min(self.filled, self.multiplied + min(room, left))

    def _noise(self, product: Tensor) -> float:
        """The size up to which parts of these products are rounding; takes note of their norms."""
        high = small_dtype(product.dtype)
        self.norm = max(self.norm, *(float(column.to(high).norm()) for column in product.T))  # D entries in double at a time
        return 4 * self.unit * self.norm

    def _most_kept(self) -> int:
        """How many pairs a restart keeps: the wanted ones and half of the others, as far as a block then still fits."""
        k = self.options.k
        return min(self.capacity - self.waiting - self.options.block_size, max(k, (k + self.options.ncv - self.waiting) // 2))

    def _enlarge(self) -> None:
        if self.filled:
            self.basis = self.workspace.widened(self.basis, self.capacity, self.filled)
        else:
            self.basis = self.workspace.basis(self.size, self.capacity, self.basis)
        self.action = enlarged(self.action, self.capacity)

    def _new(self, block: Tensor, *, coupled_from: int = 0, noise: float | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """What a block adds to the filled basis; see :func:`.split_off`."""
        seen = self.basis.leading(self.filled)
        return split_off(block, seen, coupled_from=coupled_from, noise=noise, panels=self.workspace.panels)

    def _append(self, block: Tensor) -> None:
        block = block[:, : self.capacity - self.filled]
        self.basis.write(self.filled, block)
        self.filled += block.shape[1]

    def _fill(self, target: int) -> None:
        """Random directions where dependent columns left the newest block too narrow: A does not couple them to the old."""
        while self.filled < min(target, self.capacity):
            missing = min(target, self.capacity) - self.filled
            self._append(self._new(self._random.columns(self._drawn, self._drawn + missing))[0])
            self._drawn += missing


def first_coupled(parts: Tensor, noise: float) -> int:
    """The first column along which a block has more than rounding, from its known coefficients (b, m); m if there is none."""
    coupled = parts.norm(dim=0) > 10 * noise
    return int(coupled.nonzero()[0]) if bool(coupled.any()) else parts.shape[1]


def enlarged(small: Tensor, capacity: int) -> Tensor:
    """A square matrix in the corner of a larger one of zeros."""
    larger = torch.zeros(capacity, capacity, dtype=small.dtype)
    larger[: len(small), : len(small)] = small
    return larger
