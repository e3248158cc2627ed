"""The basis of a block Krylov solve: what is locked stays, what was wrongly locked is let go, bases stay orthonormal."""

import pytest
import torch

import curvscope as cs
from curvscope.measurement import Meter, split_off
from curvscope.solvers.krylov import Expansion, KrylovOptions
from curvscope.tall import InMemory


def matrix(values, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    U = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64)).Q
    A = (U * values) @ U.T
    return ((A + A.T) / 2).to(dtype), U


def expansion_of(A, *, k, block_size=3, ncv=24, start=None, which="LM"):
    operator = cs.as_operator(A)
    options = KrylovOptions(k=k, which=which, tol=1e-6, block_size=block_size, ncv=ncv, max_products=10_000, seed=0)
    return Expansion(operator, options, start), Meter(operator)


def test_exact_pairs_are_locked_and_stay_where_they_are():
    values = torch.cat([torch.tensor([50.0, -40.0, 30.0, -20.0]), torch.linspace(1, -1, 196)]).double()
    A, U = matrix(values)
    expansion, meter = expansion_of(A, k=8)
    while expansion.locked < 4:
        assert meter.products < 400
        if expansion.needs_restart:
            expansion.restart()
        expansion.step(meter)
    held = expansion.basis.columns(0, expansion.locked).clone()
    restarts, locked = expansion.restarts, expansion.locked
    while expansion.restarts == restarts:
        if expansion.needs_restart:
            expansion.restart()
        expansion.step(meter)
    assert torch.equal(expansion.basis.columns(0, locked), held)
    found, rotation, residuals = expansion.ritz()
    torch.testing.assert_close(found[:4], values[:4], rtol=1e-12, atol=0)
    vectors = expansion.basis.columns(0, expansion.multiplied) @ rotation
    assert float((vectors[:, :4].T @ U[:, :4]).abs().diagonal().min()) > 1 - 1e-12
    assert float((vectors.T @ vectors - torch.eye(8)).abs().max()) < 1e-13
    true = (A @ vectors - vectors * found).norm(dim=0)
    assert float((true - residuals).abs().max()) < 1e-12


def test_locked_pairs_make_room_when_larger_ones_come_up():
    """A start in an invariant subspace locks its pairs; the larger ones outside must still be found."""
    values = torch.cat([torch.tensor([9.0, 8.0, 7.0]), torch.linspace(5, 0.1, 97)]).double()
    A, U = matrix(values)
    expansion, meter = expansion_of(A, k=4, ncv=12, start=U[:, 3:7].contiguous())
    most = 0
    for _ in range(200):
        if expansion.needs_restart:
            expansion.restart()
        most = max(most, expansion.locked)
        expansion.step(meter)
    assert most >= 4
    torch.testing.assert_close(expansion.ritz()[0], values[:4], rtol=1e-8, atol=0)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
def test_basis_stays_orthonormal_through_restarts(dtype, bound):
    values = torch.arange(1, 301, dtype=torch.float64) ** -1.5 * torch.tensor([1.0, -1.0]).repeat(150)
    A, _ = matrix(values, dtype)
    expansion, meter = expansion_of(A, k=10, block_size=2, ncv=30)
    while expansion.restarts < 12:
        if expansion.needs_restart:
            expansion.restart()
        expansion.step(meter)
        Q = expansion.basis.columns(0, expansion.filled).double()
        assert float((Q.T @ Q - torch.eye(expansion.filled)).abs().max()) < bound
    assert expansion.locked > 0


def test_the_short_first_pass_loses_nothing():
    """A block with its mass on the last columns, rounding-sized parts elsewhere, and a remainder of size 1e-5."""
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    Q = torch.linalg.qr(draw(500, 40)).Q.float()
    parts = torch.cat([1e-7 * draw(34, 3), draw(6, 3)])
    block = (Q.double() @ parts + 1e-5 * draw(500, 3)).float()
    rest, on_basis, on_rest = split_off(block, InMemory(Q), coupled_from=34)
    assert rest.shape == (500, 3)
    assert float((Q.T @ rest).abs().max()) < 1e-6
    assert float((rest.T @ rest - torch.eye(3)).abs().max()) < 1e-6
    assert float((Q.double() @ on_basis + rest.double() @ on_rest - block.double()).abs().max()) < 1e-7
    whole = split_off(block, InMemory(Q))
    torch.testing.assert_close(on_basis, whole[1], rtol=0, atol=1e-7)
