"""Residuals and intervals against dense algebra."""

import torch

from curvscope.certificates import eigenvalue_intervals, residual_norms
from curvscope.tall import InMemory


def test_residuals_equal_the_definition_for_any_block():
    A = torch.randn(30, 30, dtype=torch.float64)
    A = A + A.T
    V = torch.linalg.qr(torch.randn(30, 7, dtype=torch.float64)).Q
    values = torch.randn(7, dtype=torch.float64)
    expected = (A @ V - V * values).norm(dim=0)
    for block in (1, 3, 7, 50):
        torch.testing.assert_close(residual_norms(A.__matmul__, values, InMemory(V), block_size=block), expected)


def test_single_precision_vectors_show_residuals_below_their_rounding():
    """lambda v rounded in single would hide a residual of 1e-9 |lambda|; the difference is taken in double."""
    values = torch.tensor([1 + 1e-9], dtype=torch.float64)
    V = torch.zeros(4, 1)
    V[1] = 1
    assert abs(float(residual_norms(lambda x: x, values, InMemory(V))[0]) - 1e-9) < 1e-12


def test_every_interval_holds_an_eigenvalue():
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        A = torch.randn(20, 20, dtype=torch.float64, generator=generator)
        A = A + A.T
        V = torch.linalg.qr(torch.randn(20, 5, dtype=torch.float64, generator=generator)).Q
        theta = (V * (A @ V)).sum(0)
        intervals = eigenvalue_intervals(theta, residual_norms(A.__matmul__, theta, InMemory(V)))
        true = torch.linalg.eigvalsh(A)
        assert bool(((intervals[:, :1] <= true) & (true <= intervals[:, 1:])).any(dim=1).all())
