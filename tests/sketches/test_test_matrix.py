"""A test matrix is a pure function of (kind, seed, role, row, column)."""

from itertools import pairwise

import pytest
import torch

from curvscope.errors import InvalidArgument
from curvscope.sketches import KINDS, TestMatrix
from curvscope.sketches.test_matrix import TILE_ROWS


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_same_bits_for_any_tiling(kind):
    rows = TILE_ROWS + 100  # two tiles
    omega = TestMatrix(kind, rows, seed=3, role="right")
    whole = omega.columns(0, 5)
    assert torch.equal(torch.cat([omega.columns(i, i + 1) for i in range(5)], dim=1), whole)
    cuts = [0, 7, TILE_ROWS - 1, TILE_ROWS, TILE_ROWS + 1, rows]
    pieces = [omega.panel(slice(a, b), 0, 5) for a, b in pairwise(cuts)]
    assert torch.equal(torch.cat(pieces), whole)
    assert torch.equal(TestMatrix(kind, rows, seed=3, role="right", dtype=torch.float64).columns(0, 5).float(), whole)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_independent_across_columns_roles_and_neighbouring_seeds(kind):
    rows = 40_000
    blocks = [
        TestMatrix(kind, rows, seed=seed, role=role, dtype=torch.float64).columns(0, 4)
        for seed in (0, 1, 2)
        for role in ("left", "right")
    ]
    together = torch.cat(blocks, dim=1)
    correlation = together.T @ together / rows - torch.eye(together.shape[1], dtype=torch.float64)
    # 24 x 24 entries with standard deviation 1/sqrt(rows) (sqrt 2 times that on the Gaussian diagonal): 6 deviations
    assert correlation.abs().max() < 6 * 2**0.5 / rows**0.5
    assert together.mean(0).abs().max() < 6 / rows**0.5


def test_gaussian_has_gaussian_moments():
    x = TestMatrix("gaussian", 200_000, seed=0, role="probe", dtype=torch.float64).columns(0, 1)
    assert float(x.pow(4).mean()) == pytest.approx(3, abs=6 * 96**0.5 / 200_000**0.5)


def test_unknown_kind_is_named():
    with pytest.raises(InvalidArgument, match="sketch='gausian': choose one of gaussian, rademacher"):
        TestMatrix("gausian", 10, seed=0, role="right")
