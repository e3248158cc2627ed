"""How many products a Krylov solve to a tolerance takes where the leading eigenvalues are known: those of a small model."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.measurement import Meter
from curvscope.operators import as_operator
from curvscope.solvers.krylov import Expansion, KrylovOptions, iterate
from curvscope.solvers.results import Solution
from curvscope.solvers.sizing import expected_products
from curvscope.system import as_numbers

KRYLOV_SPREAD = (0.15, 5.0)
"""Factors of the expected number of products of a Krylov solve of an unknown spectrum: nine in ten solves of known matrices.

``python benchmarks/known_matrices.py --table benchmarks/results/known-matrices.json`` prints how many (k = 1, 5, 20, 100).
"""
KNOWN_SPREAD = (0.8, 1.3)
"""The same where leading eigenvalues are known."""
MOST_PAIRS = 200
"""Pairs of a model; more are modelled by every second, third, ... one."""
SPACING = 0.02
"""Eigenvalues that are too small to be wanted are put together in cells as wide as this share of their rank."""
FALL = (0.5, 4.0)
"""Slowest and fastest power of the rank that unknown eigenvalues are taken to fall with."""


def known_eigenvalues(spectrum: Any, k: int, size: int) -> Tensor:
    """The eigenvalues of a :class:`Solution` or an array, float64 on the CPU, by falling magnitude.

    Raises:
        InvalidArgument: not k to D finite real numbers.
    """
    values = as_numbers("spectrum", spectrum.eigenvalues if isinstance(spectrum, Solution) else spectrum)
    if values.ndim != 1 or values.is_complex() or not k <= len(values) <= size or not bool(values.isfinite().all()):
        raise InvalidArgument(
            f"spectrum: got {tuple(values.shape)} of {values.dtype}; expected an earlier solution or a vector of {k} (k) to "
            f"{size} (D) finite real eigenvalues, the largest in magnitude"
        )
    values = values.double()
    return values[values.abs().argsort(descending=True, stable=True)]


def krylov_products(known: Tensor | None, size: int, options: KrylovOptions, dtype: torch.dtype) -> tuple[int, int, int]:
    """Fewest, expected and most products, residuals not included; exactly the budget without a tolerance."""
    k, budget = options.k, options.max_products
    if options.ncv == size:  # the basis may span the whole space: nothing is left to multiply
        budget = min(budget, size)
    if not options.tol:
        return budget, budget, budget
    if known is None:
        expected, (low, high) = expected_products(k, options.block_size) - k, KRYLOV_SPREAD
    else:
        expected, (low, high) = forecast_products(known, size, options, dtype), KNOWN_SPREAD
    few, usual, many = (min(budget, max(k, round(factor * expected))) for factor in (low, 1.0, high))
    return few, usual, many


def forecast_products(eigenvalues: Tensor, size: int, options: KrylovOptions, dtype: torch.dtype) -> int:
    """Products of a block Krylov solve of a D x D operator with these leading eigenvalues: those of a small diagonal model.

    Krylov spaces see nothing of an operator but its eigenvalues and the start block's share in each, so that a diagonal matrix
    of some hundred of them, with many small ones in one whose share is larger, takes as many products. The eigenvalues after
    the known ones are taken to fall like the power of the rank that the second half of the known ones falls with.

    Args:
        eigenvalues: at least k, by falling magnitude.
        size: D.
        options: of the solve.
        dtype: of the operator: rounding ends a solve as well.

    Cost: a solve of at most 200 pairs with a matrix of some thousand rows: half a second.
    Limits: with k eigenvalues known, whether there is a gap after them is not: pass some more. More than 200 pairs: every
        second, third, ... is modelled, with as much narrower blocks.
    """
    step = -(-options.k // MOST_PAIRS)
    values, counts = model(eigenvalues, size, fine=2 * options.ncv, step=step)
    rows, width = len(values), min(len(values), max(1, round(options.block_size / step)))
    small = replace(
        options,
        k=min(rows, -(-options.k // step)),
        block_size=width,
        ncv=min(rows, max(-(-options.ncv // step), -(-options.k // step) + 2 * width)),
        max_products=-(-options.max_products // step),
    )
    generator = torch.Generator().manual_seed(options.seed)
    start = torch.randn(rows, width, generator=generator, dtype=torch.float64, device="cpu") * counts.sqrt()[:, None]
    operator = as_operator(torch.diag(values).to(dtype))
    meter = Meter(operator, progress=False)
    iterate(meter, small, Expansion(operator, small, start.to(dtype)), stage="model")
    return min(options.max_products, max(options.k, step * meter.products))


def model(eigenvalues: Tensor, size: int, *, fine: int, step: int = 1) -> tuple[Tensor, Tensor]:
    """(values, counts): D eigenvalues in cells of ``step`` of them up to rank ``fine``, and of wider and wider ones beyond.

    >>> values, counts = model(torch.tensor([4.0, -2.0]), 10, fine=3)
    >>> values[:4].tolist(), counts.tolist()
    ([4.0, -2.0, -1.3333333730697632, -1.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    """
    edges = [0.0]
    while edges[-1] < size:
        edges.append(min(float(size), edges[-1] + max(float(step), SPACING * (edges[-1] - fine))))
    bounds, known = torch.tensor(edges, dtype=torch.float64, device="cpu"), len(eigenvalues)
    counts = bounds.diff()
    chosen = torch.rand(
        len(counts), generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu"
    )  # of each cell
    ranks = bounds[:-1] + (chosen * counts).floor() + 1
    values = eigenvalues[(ranks - 1).long().clamp(max=known - 1)]
    later, half = ranks > known, known // 2
    values[later] *= (ranks[later] / known) ** -_fall(eigenvalues)
    signs = eigenvalues[half:].sign()  # as they come in the second half
    values[later] = values[later].abs() * signs[torch.arange(int(later.sum()), device="cpu") % len(signs)]
    return values, counts


def _fall(eigenvalues: Tensor) -> float:
    """The power of the rank that the second half falls with, within bounds; 1 where one cannot tell."""
    known, least, most = len(eigenvalues), *FALL
    middle, last = float(eigenvalues[max(1, known // 2) - 1].abs()), float(eigenvalues[-1].abs())
    if known < 2 or not last:
        return 1.0
    return min(most, max(least, math.log(middle / last) / math.log(known / max(1, known // 2))))
