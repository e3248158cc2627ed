"""All eigenvalues of a matrix whose rank is known to be small, from the range of the matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from curvscope.measurement import Meter, blocks
from curvscope.operators import RankBound
from curvscope.sketches import TestMatrix

MORE = 8
"""Random directions beyond the bound: they show that the range holds no more, and make the others well-conditioned."""
BLOCK, ROLE = 32, "range"
ROUNDINGS = 1e3
"""Rounding units, relative to the largest, up to which further singular values of the sketch are rounding."""


def products_needed(bound: RankBound) -> int:
    """Return the products that :func:`eigenvalues_by_range` takes."""
    return 2 * (bound.rank + MORE)


def vectors_needed(bound: RankBound) -> int:
    """Return the float64 vectors that :func:`eigenvalues_by_range` keeps at a time."""
    return 3 * (bound.rank + MORE)


def eigenvalues_by_range(meter: Meter, bound: RankBound, *, seed: int) -> Tensor | None:
    """Return all D eigenvalues, ascending, float64: those on the range, and zeros.

    A times p = rank + 8 random vectors spans the range of A to rounding. On an orthonormal basis of it, the p x p matrix
    Q' A Q has all nonzero eigenvalues.

    Args:
        meter: of a Hermitian operator.
        bound: with rank + 8 < D.
        seed: of the random vectors.

    Returns:
        The eigenvalues; None if the sketch has a larger rank than the bound, which then is wrong.

    Cost: 2 p products; 4 D p^2 operations; memory: 3 p vectors in float64.
    Source: Halko, Martinsson and Tropp (SIREV 2011).
    """
    operator, count = meter.operator, bound.rank + MORE
    random = TestMatrix("gaussian", operator.shape[0], seed=seed, role=ROLE, dtype=operator.dtype, device=operator.device)
    with meter.stage("range of the matrix", 2 * count):
        pieces = [meter.multiply(random.columns(start, stop)).double() for start, stop in blocks(count, BLOCK)]
        basis, triangle = torch.linalg.qr(torch.cat(pieces, dim=1))
        del pieces
        sizes = torch.linalg.svdvals(triangle)
        if float(sizes[bound.rank]) > ROUNDINGS * operator.rounding * float(sizes[0]):
            return None
        columns = []
        for start, stop in blocks(count, BLOCK):
            product = meter.multiply(basis[:, start:stop].to(operator.dtype)).double()
            columns.append((basis.T @ product).cpu())
    core = torch.cat(columns, dim=1)
    found = torch.linalg.eigvalsh((core + core.T) / 2)
    found[found.abs().argsort()[:MORE]] = 0.0  # the bound leaves nothing but rounding for these
    zeros = torch.zeros(operator.shape[0] - count, dtype=torch.float64, device="cpu")
    return torch.cat([found, zeros]).sort().values
