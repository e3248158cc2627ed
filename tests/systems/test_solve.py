"""Linear systems against dense float64 solutions: residuals, bounds, what is told of indefinite and singular ones."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse.linalg as scipy_linalg
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType, OutOfBudget


@pytest.fixture(scope="module")
def benchmark():
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("solves")
    finally:
        sys.path.remove(folder)


def matrix(values, seed=0):
    basis, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=torch.Generator().manual_seed(seed)).double())
    made = (basis * values) @ basis.T
    return (made + made.T) / 2


def vectors(size, count, seed=1):
    return torch.randn(size, count, generator=torch.Generator().manual_seed(seed)).double()


POWERS = torch.logspace(0, -5, 120).double()
A, B = matrix(POWERS), vectors(120, 5)
DAMPED = A + 1e-3 * torch.eye(120).double()


def test_no_claim_on_random_systems_is_false(benchmark):
    claims = [benchmark.false_claims(benchmark.random_system(number), number) for number in range(8, 16)]
    assert [wrong for wrong, _ in claims if wrong] == []
    assert sum(has_bound for _, has_bound in claims) >= 4


@pytest.mark.slow
def test_no_claim_on_many_random_systems_is_false(benchmark):
    for number in range(1000, 1400):
        assert benchmark.false_claims(benchmark.random_system(number), number)[0] == [], number


@pytest.mark.parametrize("method", ["cg", "minres"])
@pytest.mark.parametrize("count", [1, 5])
def test_solutions_agree_with_dense_ones(method, count):
    found = cs.solve(A, B[:, :count], damping=1e-3, tol=1e-10, method=method)
    exact = torch.linalg.solve(DAMPED, B[:, :count])
    assert found.converged
    assert float((found.x - exact).norm() / exact.norm()) < 1e-7
    torch.testing.assert_close(found.residual_norms, (B[:, :count] - DAMPED @ found.x).norm(dim=0), rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_products_are_about_those_of_scipy(method):
    counted = []
    operator = scipy_linalg.LinearOperator(
        (120, 120), matvec=lambda x: counted.append(0) or DAMPED.numpy() @ x, dtype=np.float64
    )
    x, _ = getattr(scipy_linalg, method)(operator, B[:, 0].numpy(), rtol=1e-7)
    reached = float((B[:, 0] - DAMPED @ torch.from_numpy(x)).norm() / B[:, 0].norm())
    tol = 1e-7 if method == "cg" else reached * 1.001
    assert cs.solve(A, B[:, 0], damping=1e-3, tol=tol, method=method).cost.products <= 1.05 * len(counted)


def test_a_block_of_right_hand_sides_needs_fewer_products_than_each_alone():
    alone = sum(cs.solve(A, B[:, j], damping=1e-3, method="cg").products for j in range(5))
    assert cs.solve(A, B, damping=1e-3, method="cg").products < 0.8 * alone


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_deflation_and_low_rank_preconditioners_halve_the_products(method):
    large = matrix(torch.arange(1, 301).double() ** -1.5, 2)
    solution = cs.eigsh(large, 50)
    right = vectors(300, 1)[:, 0]
    plain = cs.solve(large, right, damping=1e-3, method=method)
    for options in (
        {"deflate": solution},
        {"preconditioner": solution.low_rank(1e-3)},
        {"preconditioner": solution.low_rank(1e-3).inverse()},
        {"deflate": solution[:20], "preconditioner": solution.low_rank(1e-3)},
    ):
        found = cs.solve(large, right, damping=1e-3, method=method, **options)
        assert found.converged
        assert found.products <= 0.5 * plain.products, options


def test_a_diagonal_preconditioner_helps_a_badly_scaled_matrix():
    scales = torch.logspace(0, 3, 120).double()
    badly = scales[:, None] * (DAMPED + torch.eye(120).double()) * scales
    plain = cs.solve(badly, B[:, 0], method="minres", max_products=2000)
    found = cs.solve(badly, B[:, 0], method="cg", preconditioner=1 / badly.diagonal())
    assert found.converged
    assert found.products < 0.3 * plain.products
    with pytest.raises(InvalidArgument, match="positive"):
        cs.solve(A, B, preconditioner=-torch.ones(120).double())
    with pytest.raises(InvalidArgument, match="not positive definite"):
        cs.solve(A, B, damping=1.0, preconditioner=-torch.eye(120).double())


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3))
    return model, nn.CrossEntropyLoss(), [(torch.randn(30, 3), torch.arange(30) % 3)]


def test_a_gauss_newton_matrix_has_a_bound_from_its_damping_alone():
    G = cs.ggn(*network(), dtype=torch.float64)
    right = G.gradient()
    found = cs.solve(G, right, damping=1e-3, tol=1e-6)
    error = float((found.x - torch.linalg.solve(G.to_dense() + 1e-3 * torch.eye(G.shape[0]).double(), right)).norm())
    assert found.method == "cg"
    assert found.inertia == "positive definite"
    assert error <= float(found.error_bounds) < 1e-2
    assert "semidefinite" in found.proof


@pytest.mark.parametrize("which", ["LM", "SA"])
def test_a_certificate_proves_a_bound(which):
    values = torch.cat([torch.tensor([-3.0, 2.0, 1.5]), torch.linspace(-0.01, 0.01, 80)]).double()
    indefinite = matrix(values, 3)
    damping = 0.5 if which == "LM" else 4.0
    certified = cs.certify(indefinite, cs.eigsh(indefinite, 3, which=which, tol=1e-9))
    found = cs.solve(indefinite, vectors(83, 3), damping=damping, spectrum=certified)
    exact = torch.linalg.solve(indefinite + damping * torch.eye(83).double(), vectors(83, 3))
    assert float((values + damping).abs().min()) * 0.9 < found.distance <= float((values + damping).abs().min()) * (1 + 1e-9)
    assert bool(((found.x - exact).norm(dim=0) <= found.error_bounds).all())
    assert found.inertia == ("indefinite" if which == "LM" else "positive definite")
    assert "certificate" in str(found)


def test_without_a_proof_there_is_no_bound():
    found = cs.solve(A, B, damping=1e-3)
    assert bool(torch.isinf(found.error_bounds).all())
    assert "not bounded" in str(found)
    assert found.to_dict()["error_bounds"] == [None] * 5
    with pytest.raises(InvalidArgument, match="spectrum"):
        cs.solve(A, B, spectrum="all")


@pytest.mark.parametrize("count", [1, 4])
def test_indefinite_systems_are_solved_and_named(count):
    values = torch.linspace(-1, 1, 80).double() + 1e-3
    indefinite = matrix(values, 4)
    right = vectors(80, count)
    found = cs.solve(indefinite, right)
    assert (found.method, found.inertia, found.converged) == ("minres", "indefinite", True)
    refused = cs.solve(indefinite, right, method="cg")
    assert refused.status.code == "indefinite"
    assert "minres" in str(refused)
    assert refused.inertia == "indefinite"
    claimed = cs.solve(indefinite, right, spectrum=0.5)  # a false lower bound lets CG begin, MINRES ends
    assert (claimed.method, claimed.converged) == ("minres", True)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("kind", ["semidefinite", "indefinite", "projection", "zero"])
def test_singular_systems_are_told_from_solvable_ones(kind, count):
    values = torch.linspace(-1 if kind == "indefinite" else 0.2, 1, 60).double()
    values[20:24] = 0
    if kind in ("projection", "zero"):
        values = (values > 2).double() if kind == "zero" else (values != 0).double()
    singular, right = matrix(values, 5), vectors(60, count)
    found = cs.solve(singular, right)
    assert (found.status.code, found.inertia) == ("singular", "singular")
    least = (right - singular @ torch.linalg.pinv(singular, rtol=1e-10, hermitian=True) @ right).norm(dim=0)
    torch.testing.assert_close(found.residual_norms, least, rtol=1e-6, atol=0)
    if kind != "zero":
        assert cs.solve(singular, singular @ right).converged


def test_a_nearly_singular_system_is_none():
    values = torch.linspace(0.1, 1, 60).double()
    values[:2] = 1e-9
    found = cs.solve(matrix(values, 6), vectors(60, 1)[:, 0])
    assert found.converged
    assert found.inertia != "singular"


def test_dependent_and_zero_right_hand_sides():
    right = torch.stack([B[:, 0], 2 * B[:, 0], torch.zeros(120).double(), B[:, 1] * 1e-9, B[:, 1] * 1e9], dim=1)
    for method in ("cg", "minres"):
        found = cs.solve(A, right, damping=1e-2, method=method, tol=1e-8)
        assert found.converged
        torch.testing.assert_close(found.x[:, 1], 2 * found.x[:, 0], rtol=1e-4, atol=1e-6)
        assert not bool(found.x[:, 2].any())


def test_float32_products_reach_what_their_rounding_allows():
    found = cs.solve(A.float(), B.float(), damping=1e-2, tol=1e-5, method="cg")
    assert found.converged
    hopeless = cs.solve(A.float(), B.float(), damping=1e-4, tol=1e-12, method="minres")
    assert hopeless.status.code == "partly"
    assert "float64" in str(hopeless.status)


def test_a_budget_ends_the_iteration():
    found = cs.solve(A, B[:, 0], damping=1e-3, tol=1e-10, max_products=10)
    assert found.status.code == "partly"
    assert found.cost.products <= 10
    assert "max_products" in str(found)


def test_right_hand_sides_of_every_form():
    H = cs.ggn(*network())
    gradient = H.gradient()
    plain = cs.solve(H, gradient, damping=0.1)
    named = cs.solve(H, H.parameters.unflatten(gradient), damping=0.1)
    assert set(named.x) == set(H.parameters.names)
    torch.testing.assert_close(H.parameters.flatten(named.x), plain.x)
    array = cs.solve(H, gradient.numpy(), damping=0.1)
    assert isinstance(array.x, np.ndarray)
    double = cs.solve(H, gradient.double(), damping=0.1)
    assert double.x.dtype == torch.float64
    np.testing.assert_allclose(np.asarray(named), plain.x.numpy(), rtol=1e-5)
    assert plain.x.shape == (H.shape[0],)
    assert cs.solve(H, b=gradient, damp=0.1).converged


def test_several_blocks_and_workers_agree():
    whole = cs.solve(A, B, damping=1e-2, tol=1e-9)
    split = cs.solve(A, B, damping=1e-2, tol=1e-9, block_size=2)
    torch.testing.assert_close(whole.x, split.x, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_solved_is_named():
    for right, kind in (
        (torch.ones(5).double(), InvalidArgument),
        ("b", InvalidType),
        (torch.full((120,), torch.nan).double(), InvalidArgument),
    ):
        with pytest.raises(kind):
            cs.solve(A, right)
    with pytest.raises(InvalidArgument, match="deflate is not a solution"):
        cs.solve(A, B, deflate=cs.eigsh(DAMPED, 3))
    with pytest.raises(OutOfBudget, match="fewer at a time"):
        cs.solve(A, B, memory=1000)
    with pytest.raises(InvalidArgument):
        cs.solve(torch.ones(3, 4), torch.ones(3))
