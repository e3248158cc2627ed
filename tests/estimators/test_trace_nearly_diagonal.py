"""Nearly diagonal matrices, whose trace random signs give almost exactly: "auto" must see it from its first samples."""

import numpy as np
import pytest
import torch

import curvscope as cs

SEEDS = range(4)


def wilkinson(size: int) -> torch.Tensor:
    """Distances from the middle on the diagonal, ones beside it."""
    ones = torch.ones(size - 1, dtype=torch.float64)
    return torch.diag(torch.arange(size).sub(size // 2).abs().double()) + torch.diag(ones, 1) + torch.diag(ones, -1)


def cliques(half: int) -> torch.Tensor:
    """Laplacian of two complete graphs joined by an edge."""
    adjacency = torch.block_diag(*[torch.ones(half, half, dtype=torch.float64)] * 2).fill_diagonal_(0)
    adjacency[0, -1] = adjacency[-1, 0] = 1
    return torch.diag(adjacency.sum(dim=0)) - adjacency


def weak_coupling(size: int) -> torch.Tensor:
    """Signs on the diagonal and a weak dense coupling: trace near 0, norm far from it."""
    i = torch.arange(size, dtype=torch.float64)
    return torch.diag((-1.0) ** i) + 1e-3 * torch.cos(i[:, None] - i)


def nearly_identity(size: int) -> torch.Tensor:
    """The identity and a few directions in a random basis."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.linalg.qr(torch.randn(size, 5, generator=generator, dtype=torch.float64)).Q
    return torch.eye(size, dtype=torch.float64) + 0.1 * vectors @ vectors.T


def rms(matrix: torch.Tensor, method: str, count: int) -> float:
    """Root mean square error over the seeds."""
    truth = float(matrix.diagonal().sum())
    return float(
        np.sqrt(np.mean([(cs.trace(matrix, method=method, max_products=count, seed=s).value - truth) ** 2 for s in SEEDS]))
    )


@pytest.mark.parametrize("make", [wilkinson, cliques, weak_coupling, nearly_identity])
@pytest.mark.parametrize(("method", "count"), [("auto", 24), ("krylov", 48)])
def test_auto_is_as_good_as_signs(make, method, count):
    """Within twice of Hutchinson, where xtrace is many times worse."""
    matrix = make(60)
    allowed = 2 * rms(matrix, "hutchinson", count) + 1e-10 * float(matrix.diagonal().abs().sum())
    assert rms(matrix, method, count) <= allowed < rms(matrix, "xtrace", count)


@pytest.mark.parametrize("values", [0.8 ** torch.arange(120.0), torch.cat([torch.ones(50), 1e-6 * torch.ones(70)])])
def test_auto_stays_with_xtrace_where_a_sketch_helps(values):
    """Where the spectrum falls nothing is given away; flat ones are in test_trace_outliers."""
    values = values.double()
    basis = torch.linalg.qr(torch.randn(120, 120, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    matrix = (basis * values) @ basis.T
    matrix = (matrix + matrix.T) / 2
    for seed in (0, 1):
        auto, named = (cs.trace(matrix, method=method, max_products=100, seed=seed) for method in ("auto", "xtrace"))
        assert auto.products == 100
        assert auto.value == pytest.approx(named.value, abs=1e-9)


def test_intervals_hold_and_the_diagonal_profits():
    """The standard errors are those of signs alone; the tolerance may be reached by the first samples."""
    matrix = wilkinson(100)
    truth = float(matrix.diagonal().sum())
    found = [cs.trace(matrix, max_products=60, seed=s) for s in range(12)]
    assert sum(e.interval[0] <= truth <= e.interval[1] for e in found) >= 10
    quick = cs.trace(matrix, max_products=60, rtol=0.01)
    assert quick.products < 20
    assert abs(quick.value - truth) < 0.02 * truth
    entries = cs.diagonal(matrix, max_products=60)
    assert float((entries.value - matrix.diagonal()).norm()) < 10
