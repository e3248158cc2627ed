"""Randomized block Krylov with Rayleigh-Ritz, full re-orthogonalisation and thick restart: the default eigensolver."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curvscope.operators import Operator
from curvscope.sketches import TestMatrix
from curvscope.solvers.finish import Pairs, is_converged
from curvscope.solvers.meter import Meter
from curvscope.solvers.ordering import wanted
from curvscope.tall import InMemory, gram, multiply, orthonormalize, subtract

GROWTH_BETWEEN_CHECKS = 1.05
MOST_PASSES = 4
CONFIRMING_STEPS = 4
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
    which gives the residuals.
    """

    def __init__(self, operator: Operator, options: KrylovOptions, start: Tensor | None = None) -> None:
        self.size, self.unit = operator.shape[0], torch.finfo(operator.dtype).eps
        self.basis = InMemory.empty(self.size, 0, operator.dtype, operator.device)
        self.action = torch.zeros(0, 0, dtype=torch.float64)
        self.multiplied = self.filled = self.restarts = self._drawn = 0
        self.norm = 0.0
        self.confirmed: tuple[str, int] = (options.which, 0)  # which, and how many, pairs stood after stirring
        self.adopt(options, waiting=0 if start is None else start.shape[1])
        self._random = TestMatrix(
            "gaussian", self.size, seed=options.seed, role="krylov", dtype=operator.dtype, device=operator.device
        )
        if start is not None:
            self._append(self._split(start)[0])
        self._fill(options.block_size)

    def adopt(self, options: KrylovOptions, *, waiting: int = 0) -> None:
        """Go on with these options: another k, tol or budget, and room for more columns if there was less.

        Room is for ncv columns and a block, and always for k Ritz vectors, the columns that wait to be multiplied and a block.
        """
        self.options = options
        needed = options.k + max(waiting, self.waiting) + 2 * options.block_size
        self.capacity = max(self.filled, min(self.size, max(options.ncv + options.block_size, needed)))
        if self.capacity > self.basis.shape[1]:
            basis, action = self.basis, self.action
            self.basis = InMemory.empty(self.size, self.capacity, basis.dtype, basis.device)
            self.basis.write(0, basis.columns(0, self.filled))
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
        projected = self._projected()
        norm = float(projected.norm())
        return float((projected - projected.T).norm()) / norm if norm else 0.0

    def step(self, meter: Meter, note: str = "") -> None:
        """Multiply the waiting columns (as many as budget and room allow) and append the new directions of the products."""
        old, before = self.multiplied, self.filled
        room = self.waiting if before == self.size else self.capacity - before
        new = min(before, old + min(room, self.options.max_products - meter.products))
        product = meter.multiply(self.basis.columns(old, new), note)
        self.norm = max(self.norm, float(product.double().norm(dim=0).max()))
        rest, on_basis, on_rest = self._split(product, noise=4 * self.unit * self.norm)
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
        """Keep the wanted Ritz vectors and half of the others that fit, and go on from the waiting columns."""
        m, k, width = self.multiplied, self.options.k, self.waiting
        values, rotation = self._eigh()
        most = self.capacity - width - self.options.block_size
        chosen = wanted(values, min(most, max(k, (k + self.options.ncv - width) // 2)), self.options.which)
        outside = self._outside() @ rotation[:, chosen]
        newest = self.basis.columns(m, self.filled).clone()
        self.basis.rotate(rotation[:, chosen])
        self.action.zero_()
        kept = len(chosen)
        self.action[:kept, :kept] = torch.diag(values[chosen])
        self.action[kept : kept + width, :kept] = outside
        self.multiplied = self.filled = kept
        self._append(newest)
        self.restarts += 1

    # --- inside -----------------------------------------------------------------------------------------------------------

    def _projected(self) -> Tensor:
        return self.action[: self.multiplied, : self.multiplied]

    def _outside(self) -> Tensor:
        return self.action[self.multiplied : self.filled, : self.multiplied]

    def _eigh(self) -> tuple[Tensor, Tensor]:
        projected = self._projected()
        return torch.linalg.eigh((projected + projected.T) / 2)

    def _split(self, block: Tensor, *, noise: float | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(rest, on_basis, on_rest) with block = Q on_basis + rest on_rest, rest orthonormal and orthogonal to Q.

        Block Gram-Schmidt, twice or more, the remainder made orthonormal between the passes: where a product lies almost in
        the basis, a second pass on the bare remainder would leave it orthogonal only to rounding of the whole product.
        Directions of size up to ``noise`` are dropped.
        """
        basis, rest = self.basis.leading(self.filled), block.clone()
        on_basis = torch.zeros(self.filled, block.shape[1], dtype=torch.float64)
        on_rest = torch.eye(block.shape[1], dtype=torch.float64)
        for turn in range(MOST_PASSES):
            overlaps = gram(basis, InMemory(rest))
            subtract(rest, basis, overlaps)
            on_basis += overlaps @ on_rest
            found = orthonormalize(InMemory(rest), noise=noise if turn == 0 else 0.1)
            rest, on_rest = found.basis.to_tensor(), found.coefficients @ on_rest
            if turn and (not overlaps.numel() or float(overlaps.abs().max()) < 0.5):
                break
        return rest, on_basis, on_rest

    def _append(self, block: Tensor) -> None:
        block = block[:, : self.capacity - self.filled]
        self.basis.write(self.filled, block)
        self.filled += block.shape[1]

    def _fill(self, target: int) -> None:
        """Random directions where dependent columns left the newest block too narrow: A does not couple them to the old."""
        while self.filled < min(target, self.capacity):
            missing = min(target, self.capacity) - self.filled
            self._append(self._split(self._random.columns(self._drawn, self._drawn + missing))[0])
            self._drawn += missing


def block_krylov(meter: Meter, options: KrylovOptions, expansion: Expansion) -> Pairs:
    r"""The k wanted Ritz pairs of A from the block Krylov space that ``expansion`` begins or has reached.

    Each step multiplies the newest block, orthogonalises the products against the whole basis and appends what is new. The
    Rayleigh-Ritz pairs are those of Q* A Q as computed. A basis of more than ncv columns is restarted thickly: the wanted Ritz
    vectors and some more are kept, with both ends of the spectrum for LM and BE. When all k residuals are small, two
    fresh random directions are added, and the solve ends if after four more steps and 5% more products they still are: a pair
    that the start block missed, such as another copy of a multiple eigenvalue, shows up in between. Otherwise it ends with
    the budget.

    Cost: ``meter.products``; D (m + b) numbers for the basis of m <= ncv columns; 4 D m b operations a step.
    Limits: a block of width b sees at most b copies of a multiple eigenvalue from one start, and two more from the random
        directions at the end; only :func:`curvscope.certify` proves that none is missing.
    Source: Musco and Musco (2015); Wu and Simon (2000) for the restart; Tropp and Webber (2023) for a survey.
    """
    note, next_check = "", 0
    agreed = expansion.confirmed[0] == options.which and expansion.confirmed[1] >= options.k
    with meter.stage("block Krylov", options.max_products):
        while meter.products < options.max_products and not expansion.exhausted:
            if expansion.crowded:
                expansion.restart()
            expansion.step(meter, note)
            if options.tol and meter.products >= next_check and expansion.multiplied >= options.k:
                good, note = _progress(expansion, options)
                if good == options.k and agreed:
                    expansion.confirmed = (options.which, options.k)
                    break
                next_check = int(meter.products * GROWTH_BETWEEN_CHECKS)
                if good == options.k:  # look once more, from elsewhere
                    expansion.stir()
                    next_check = max(next_check, meter.products + CONFIRMING_STEPS * (options.block_size + STIRRED))
                agreed = good == options.k
        values, rotation, _ = expansion.ritz()
        vectors = multiply(expansion.basis.leading(expansion.multiplied), rotation)
    return Pairs(
        values,
        vectors,
        tol=options.tol,
        advice=f"raise max_products (now {options.max_products}), ncv (now {options.ncv}) or tol",
        diagnostics={"asymmetry": expansion.asymmetry, "restarts": float(expansion.restarts)},
    )


def _progress(expansion: Expansion, options: KrylovOptions) -> tuple[int, str]:
    """How many pairs have converged by their estimates, and that in words."""
    values, _, residuals = expansion.ritz()
    good = int(is_converged(values, residuals, options.tol, scale=expansion.norm, unit=expansion.unit).sum())
    relative = (residuals / values.abs().clamp(min=expansion.unit * expansion.norm)).sort().values
    return good, (
        f"{good} of {options.k} converged; relative residuals: median {float(relative[len(relative) // 2]):.0e}, "
        f"90% below {float(relative[int(0.9 * (len(relative) - 1))]):.0e}, worst {float(relative[-1]):.0e}"
    )
