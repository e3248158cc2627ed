"""What every kind of test matrix must do."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch

from curvscope.sketches import TILE_ROWS, TestMatrix
from curvscope.tall import InMemory
from curvscope.testing._close import random, require, require_close

DEVIATIONS = 6.5
"""Standard deviations that a sample correlation may be off: fails by chance once in 1e10 entries."""


Make = Callable[..., TestMatrix]
"""How a kind is made: ``make(rows, seed=..., role=..., dtype=...)``."""


def same_bits_for_any_blocks(make: Make, dtype: torch.dtype) -> None:
    """Columns alone, together or from the middle, rows in any panels, are the same bits."""
    rows = TILE_ROWS + 100  # two tiles
    matrix = make(rows, seed=3, role="right", dtype=dtype)
    whole = matrix.columns(0, 5)
    require(whole.shape == (rows, 5) and whole.dtype == dtype, "columns(0, 5) is (D, 5) of the dtype asked for")
    alone = torch.cat([matrix.columns(i, i + 1) for i in range(5)], dim=1)
    require(torch.equal(alone, whole), "columns one by one are the columns together")
    require(torch.equal(matrix.columns(2, 4), whole[:, 2:4]), "columns from the middle are the same")
    cuts = [0, 7, TILE_ROWS - 1, TILE_ROWS, TILE_ROWS + 1, rows]
    pieces = torch.cat([matrix.panel(slice(a, b), 0, 5) for a, b in pairwise(cuts)])
    require(torch.equal(pieces, whole), "panels of rows make up the columns")
    again = make(rows, seed=3, role="right", dtype=dtype).columns(0, 5)
    require(torch.equal(again, whole), "the same name gives the same matrix")


def same_numbers_in_any_precision(make: Make, dtype: torch.dtype) -> None:
    """Single and double precision hold the same matrix."""
    pair = (torch.complex64, torch.complex128) if dtype.is_complex else (torch.float32, torch.float64)
    single, double = (make(1000, seed=0, role="right", dtype=kind).columns(0, 40) for kind in pair)
    require_close(single.to(double.dtype), double, 1e-5, "single precision is double precision rounded")


def entries_are_uncorrelated_with_variance_one(make: Make, dtype: torch.dtype) -> None:
    """Columns, roles and neighbouring seeds are uncorrelated; entries have mean 0 and variance 1."""
    rows = 40_000
    high = torch.complex128 if dtype.is_complex else torch.float64
    blocks = [
        make(rows, seed=seed, role=role, dtype=high).columns(first, first + 4)
        for seed in (0, 1, 2)
        for role in ("left", "right")
        for first in (0, 20)
    ]
    together = torch.cat(blocks, dim=1)
    correlation = together.mH @ together / rows - torch.eye(together.shape[1], dtype=high, device="cpu")
    # Entries of fourth moment up to 64 (a sparse strip that is 64 wide; here at most 8): the diagonal's deviation.
    deviation = torch.full(correlation.shape, rows**-0.5, dtype=torch.float64, device="cpu")
    deviation.fill_diagonal_(max(float((together.abs().pow(4).mean() - 1).clamp(min=0)), 1.0) ** 0.5 * (8 / rows) ** 0.5)
    require(bool((correlation.abs() <= DEVIATIONS * deviation).all()), "columns are uncorrelated, of mean square 1")
    require(bool((together.mean(0).abs() <= DEVIATIONS * rows**-0.5).all()), "entries have mean 0")


def adjoint_multiply_is_the_product(make: Make, dtype: torch.dtype) -> None:
    """adjoint_multiply(W, i, j) is columns(i, j)* @ W, for any i, j, and W of two tiles."""
    high = torch.complex128 if dtype.is_complex else torch.float64
    rows = TILE_ROWS + 100
    W = InMemory(random(rows, 3, dtype, torch.device("cpu")))
    matrix = make(rows, seed=1, role="left", dtype=dtype)
    columns = matrix.columns(0, 20).to(high)
    for start, stop in ((0, 20), (3, 17), (5, 6)):
        expected = columns[:, start:stop].mH @ W.tensor.to(high)
        allowed = 50 * torch.finfo(dtype).eps * rows**0.5 * 2
        found = matrix.adjoint_multiply(W, start, stop)
        require_close(found, expected, allowed, f"adjoint_multiply(W, {start}, {stop}) is columns* @ W")
        require(found.dtype == high, "adjoint_multiply gives double precision")


def keeps_subspaces(make: Make, dtype: torch.dtype) -> None:
    """Twice as many columns as dimensions keep every length in a subspace, of spikes or of dense vectors, within a factor.

    For Gaussian columns the singular values of Psi* Q / sqrt(n) lie within 1 +- sqrt(1/2), 0.29 to 1.71.
    """
    rows, rank = 3000, 60
    spikes = torch.zeros(rows, rank, dtype=dtype, device="cpu")
    spikes[
        torch.randperm(rows, generator=torch.Generator().manual_seed(0), device="cpu")[:rank], torch.arange(rank, device="cpu")
    ] = 1
    dense = torch.linalg.qr(random(rows, rank, dtype, torch.device("cpu"))).Q
    for basis in (spikes, dense):
        compressed = make(rows, seed=2, role="left", dtype=dtype).adjoint_multiply(InMemory(basis), 0, 2 * rank)
        sizes = torch.linalg.svdvals(compressed) / (2 * rank) ** 0.5
        require(float(sizes.min()) > 0.12 and float(sizes.max()) < 2.2, "the matrix keeps subspaces of half its size")


TEST_MATRIX_CHECKS: tuple[Callable[[Make, torch.dtype], None], ...] = (
    same_bits_for_any_blocks,
    same_numbers_in_any_precision,
    entries_are_uncorrelated_with_variance_one,
    adjoint_multiply_is_the_product,
    keeps_subspaces,
)


def check_test_matrix(make: Make, dtype: torch.dtype = torch.float32) -> None:
    """All of :data:`TEST_MATRIX_CHECKS` for ``make(rows, seed=..., role=..., dtype=...)``.

    Raises:
        AssertionError: the first that is violated.

    >>> from functools import partial
    >>> check_test_matrix(partial(TestMatrix, "rademacher"))
    """
    for check in TEST_MATRIX_CHECKS:
        check(make, dtype)
