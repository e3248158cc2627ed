"""Block Lanczos for functions of a matrix: a basis of a block Krylov space, the projected matrix, and the error of f.

One space for all columns, in which each column's result is best. :func:`.measurement.lanczos` keeps a space for each start:
its quadratures are of independent probes, whose scatter is their error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.systems._eigenvalue_functions import Function, divided, points_between, values_at
from curvscope.systems._inner import orthonormal

ROUNDINGS = 10
"""Units of rounding of a product up to which a direction of a new block is rounding."""


SLAB = 32
"""Columns of a slab: enough for one matrix product over many small blocks, little beside a basis."""


class Interval(NamedTuple):
    """An interval that holds a spectrum.

    Attributes:
        low: lower end; -inf: nothing is known.
        high: upper end; inf: nothing is known.
    """

    low: float
    high: float

    def check_holds(self, values: Tensor, noise: float) -> None:
        """Raise InvalidArgument where Ritz values, which lie inside of the spectrum, are outside by more than ``noise``."""
        least, most = float(values.min()), float(values.max())
        if least < self.low - noise or most > self.high + noise:
            raise InvalidArgument(
                f"spectrum= is contradicted: A + damping I has an eigenvalue outside [{self.low:.9g}, {self.high:.9g}], "
                f"by Ritz values from {least:.9g} to {most:.9g}: pass ends that hold all eigenvalues"
            )


class Slabs:
    """Orthonormal columns in slabs that are allocated as they are needed, so that a growing basis is never copied."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.size, self.device = size, device
        self.slabs: list[Tensor] = []
        self.used: list[int] = []

    def append(self, block: Tensor) -> Tensor:
        """Store a (D, r) block, and return it as it is stored."""
        width = block.shape[1]
        if not self.slabs or self.used[-1] + width > self.slabs[-1].shape[1]:
            columns = max(width, SLAB)
            self.slabs.append(torch.empty(self.size, columns, dtype=torch.float64, device=self.device))
            self.used.append(0)
        start = self.used[-1]
        self.used[-1] += width
        stored = self.slabs[-1][:, start : start + width]
        stored.copy_(block)
        return stored

    def subtract_from(self, block: Tensor) -> Tensor:
        """Take the parts along all columns out of a block, in place; (columns, r) coefficients on the CPU."""
        found = []
        for slab, used in zip(self.slabs, self.used, strict=True):
            part = slab[:, :used].T @ block
            block -= slab[:, :used] @ part
            found.append(part.cpu())
        return torch.cat(found)

    def times(self, coefficients: Tensor) -> Tensor:
        """The leading columns @ coefficients."""
        made = torch.zeros(self.size, coefficients.shape[1], dtype=torch.float64, device=self.device)
        start = 0
        for slab, used in zip(self.slabs, self.used, strict=True):
            rows = coefficients[start : start + used].to(self.device)
            made += slab[:, : len(rows)] @ rows
            start += used
        return made


class BlockLanczos:
    r"""A V = V T + V_next coupling E\*, V the orthonormal basis of the space of B, A B, A^2 B, ...

    Args:
        multiply: products with A + damping I, float64 in and out.
        right: B, (D, n) float64.
        unit: rounding of the products.
    """

    def __init__(self, multiply: Callable[[Tensor], Tensor], right: Tensor, unit: float) -> None:
        self.multiply, self.unit = multiply, unit
        first = orthonormal(right, None)
        self.start = first.factor
        self.basis = Slabs(right.shape[0], right.device)
        self.last = self.basis.append(first.basis)
        self.projected = torch.zeros(0, 0, dtype=torch.float64, device="cpu")
        self.coupling = torch.zeros(0, 0, dtype=torch.float64, device="cpu")
        self.norm = 0.0

    @property
    def is_exhausted(self) -> bool:
        """True if the space is invariant: f is exact on it."""
        return not self.next_width

    @property
    def size(self) -> int:
        """Columns of V."""
        return len(self.projected)

    @property
    def next_width(self) -> int:
        """Products of the next step."""
        return int(self.last.shape[1])

    def step(self) -> None:
        """Multiply the last block and make it orthogonal, twice, to all the blocks."""
        image, size, width = self.multiply(self.last), self.size, self.next_width
        self.norm = max(self.norm, float(torch.linalg.vector_norm(image, dim=0).max()))
        overlaps = self.basis.subtract_from(image)
        # Orthonormal in between: directions of a block that differ by much in size are orthogonal to the others only then.
        between = orthonormal(image, None, ROUNDINGS * self.unit * self.norm)
        block = between.basis.clone()
        again = self.basis.subtract_from(block)
        following = orthonormal(block, None)
        diagonal = (overlaps + again @ between.factor)[size : size + width]
        grown = torch.zeros(size + width, size + width, dtype=torch.float64, device="cpu")
        grown[:size, :size] = self.projected
        grown[size:, size:] = (diagonal + diagonal.T) / 2
        if size:
            before = size - self.coupling.shape[1]
            grown[size:, before:size], grown[before:size, size:] = self.coupling, self.coupling.T
        self.projected = grown
        self.last = self.basis.append(following.basis)
        self.coupling = following.factor @ between.factor

    def evaluate(self, function: Function, known: Interval) -> Evaluated:
        r"""Return f(A) B in the basis, with the error where the spectrum is where it was seen, and where it is known to be.

        The error of a column is exactly g(A) V_next, with

        .. math:: g(x) = \sum_i (s_i^* E_1 R)\\, f[x, \theta_i]\\, (\text{coupling}\\, E_m^* s_i)

        for the eigenpairs (theta, s) of T: its norm is bounded by the largest magnitude of g on an interval that holds the
        spectrum.
        """
        thetas, vectors = torch.linalg.eigh(self.projected)
        noise = ROUNDINGS * self.unit * max(self.norm, float(thetas.abs().max())) * math.sqrt(self.size)
        known.check_holds(thetas, noise)
        thetas = thetas.clamp(min=known.low, max=known.high)
        values = values_at(function, thetas, noise)
        first = vectors[: len(self.start)].T @ self.start
        coefficients = vectors @ (values[:, None] * first)
        ends = self.coupling @ vectors[self.size - self.coupling.shape[1] :]
        radii = torch.linalg.vector_norm(ends, dim=0)
        seen = Interval(
            max(known.low, float((thetas - radii).min())) if len(ends) else float(thetas[0]),
            min(known.high, float((thetas + radii).max())) if len(ends) else float(thetas[-1]),
        )
        if not math.isfinite(float(function(torch.tensor([seen.low], dtype=torch.float64, device="cpu")))):
            seen = Interval(float(thetas[0]), seen.high)  # f ends there: the residual reaches out of its domain
        estimate = self._largest(function, seen, thetas, first, ends)
        is_known = math.isfinite(known.low) and math.isfinite(known.high)
        bound = self._largest(function, known, thetas, first, ends) if is_known else torch.full_like(estimate, math.inf)
        rounding = self._rounding(function, thetas, values) * torch.linalg.vector_norm(self.start, dim=0)
        return Evaluated(coefficients, estimate, bound, rounding, seen)

    def _largest(self, function: Function, where: Interval, thetas: Tensor, first: Tensor, ends: Tensor) -> Tensor:
        """Bound of ||g(A) V_next|| for each column, (n,), for a spectrum in an interval."""
        width, count = len(ends), first.shape[1]
        if not width:
            return torch.zeros(count, dtype=torch.float64, device="cpu")
        points = points_between(where.low, where.high, thetas)
        ratios = divided(function, points, thetas)
        g = torch.stack([ratios @ (first[:, [j]] * ends.T) for j in range(count)], dim=1)
        g = torch.where(torch.isfinite(g), g, math.inf)
        # ||sum_l g_l(A) v_l|| is at most sqrt(b) max ||g(x)||, and at most the sum of the largest |g_l|.
        together = math.sqrt(width) * torch.linalg.vector_norm(g, dim=2).amax(dim=0)
        apart = g.abs().amax(dim=0).sum(dim=1)
        return torch.minimum(together, apart)

    def _rounding(self, function: Function, thetas: Tensor, values: Tensor) -> float:
        """Return what rounding of the products does to f: its modulus of continuity at the noise of the projected matrix."""
        noise = self.unit * self.norm * math.sqrt(self.size)
        sizes = [(function(thetas + shift) - values).abs() for shift in (noise, -noise)]
        finite = [float(size[torch.isfinite(size)].max()) for size in sizes if bool(torch.isfinite(size).any())]
        own = 10 * torch.finfo(torch.float64).eps * math.sqrt(self.size) * float(values.abs().max())
        return 2 * max(finite, default=math.inf) + own

    def combine(self, coefficients: Tensor) -> Tensor:
        """V @ coefficients, (D, n) float64."""
        return self.basis.times(coefficients)


class Evaluated(NamedTuple):
    """A function of the matrix on B, in the basis.

    Attributes:
        coefficients: (m, n), V times them is f(A) B.
        estimates: float64 (n,), error of each column if the spectrum that B has a part in lies in ``seen``.
        bounds: float64 (n,), error of each column; infinite where no interval is known to hold the spectrum.
        rounding: float64 (n,), what rounding of the products adds to either.
        seen: the interval that the Ritz values and their residuals span.
    """

    coefficients: Tensor
    estimates: Tensor
    bounds: Tensor
    rounding: Tensor
    seen: Interval
