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
        self.adopt(options)
        self._random = TestMatrix(
            "gaussian", self.size, seed=options.seed, role="krylov", dtype=operator.dtype, device=operator.device
        )
        if start is not None:
            self._append(self._split(start)[0])
        self._fill(options.block_size)

    def adopt(self, options: KrylovOptions) -> None:
        """Go on with these options: another k, tol or budget, and room for ncv columns if there was less."""
        self.options = options
        self.capacity = max(self.filled, min(self.size, options.ncv + options.block_size))
        if self.capacity > self.basis.shape[1]:
            basis, action = self.basis, self.action
            self.basis = InMemory.empty(self.size, self.capacity, basis.dtype, basis.device)
            self.basis.write(0, basis.columns(0, self.filled))
            self.action = torch.zeros(self.capacity, self.capacity, dtype=torch.float64)
            self.action[: len(action), : len(action)] = action

    @property
    def exhausted(self) -> bool:
        """Whether every column was multiplied: the basis spans the whole space."""
        return self.multiplied == self.filled

    @property
    def crowded(self) -> bool:
        """Whether the products of the newest block would not fit in."""
        return self.filled < self.size and 2 * self.filled - self.multiplied > self.capacity

    @property
    def asymmetry(self) -> float:
        """||B - B*||_F / ||B||_F of the projected matrix; rounding, unless the operator is not symmetric."""
        projected = self._projected()
        norm = float(projected.norm())
        return float((projected - projected.T).norm()) / norm if norm else 0.0

    def step(self, meter: Meter, note: str = "") -> None:
        """Multiply the newest columns (as many as the budget allows) and append the new directions of the products."""
        old, before = self.multiplied, self.filled
        new = min(before, old + self.options.max_products - meter.products)
        product = meter.multiply(self.basis.columns(old, new), note)
        self.norm = max(self.norm, float(product.double().norm(dim=0).max()))
        rest, on_basis, on_rest = self._split(product, noise=4 * self.unit * self.norm)
        self._append(rest)
        self.action[:before, old:new] = on_basis
        self.action[before : self.filled, old:new] = on_rest[: self.filled - before]
        self.multiplied = new
        self._fill(new + self.options.block_size)

    def ritz(self) -> tuple[Tensor, Tensor, Tensor]:
        """Values, rotation (m x k: the vectors are Q[:, :m] times it) and residual norms of the wanted pairs, at most k."""
        values, rotation = self._eigh()
        chosen = wanted(values, self.options.k, self.options.which)
        residuals = self._outside() @ rotation[:, chosen]
        return values[chosen], rotation[:, chosen], residuals.norm(dim=0)

    def restart(self) -> None:
        """Keep the wanted Ritz vectors and half of the others that fit, and go on from the newest block."""
        m, k, width = self.multiplied, self.options.k, self.filled - self.multiplied
        values, rotation = self._eigh()
        chosen = wanted(values, max(k, (k + self.options.ncv - width) // 2), self.options.which)
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
            rest, on_rest = found.basis.tensor, found.coefficients @ on_rest
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
    vectors and some more are kept, with both ends of the spectrum for LM and BE. The solve ends when two checks, 5% of the
    products apart, both find all k residuals small (a pair found late shows up in between), or when the budget is spent.

    Cost: ``meter.products``; D (m + b) numbers for the basis of m <= ncv columns; 4 D m b operations a step.
    Limits: a block of width b sees at most b copies of a multiple eigenvalue from one start; rounding and the random refill
        find further ones slowly. Use a width of at least the expected multiplicity.
    Source: Musco and Musco (2015); Wu and Simon (2000) for the restart; Tropp and Webber (2023) for a survey.
    """
    note, agreed, next_check = "", False, 0
    with meter.stage("block Krylov", options.max_products):
        while meter.products < options.max_products and not expansion.exhausted:
            if expansion.crowded:
                expansion.restart()
            expansion.step(meter, note)
            if options.tol and meter.products >= next_check and expansion.multiplied >= options.k:
                good, note = _progress(expansion, options)
                if good == options.k and agreed:
                    break
                agreed = good == options.k
                next_check = int(meter.products * GROWTH_BETWEEN_CHECKS)
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
