"""What a converged solve says about missed pairs: bounds against exact masses, copies found, statuses in numbers."""

import math

import numpy as np
import pytest
import torch

import curvscope as cs
from curvscope.certificates import Reach, log_least_share, unseen_beyond
from curvscope.tall import small_svd
from curvscope.tall._small_svd import _by_dilation


def lanczos(values, steps, seed):
    """Coefficients of a Lanczos run with a diagonal matrix, with full re-orthogonalisation, and its start vector."""
    start = np.random.default_rng(seed).standard_normal(len(values))
    start /= np.linalg.norm(start)
    basis, alphas, betas = [start], [], []
    for _ in range(steps):
        product = values * basis[-1]
        alphas.append(float(basis[-1] @ product))
        for _ in range(2):
            for vector in basis:
                product = product - vector * (vector @ product)
        betas.append(float(np.linalg.norm(product)))
        basis.append(product / betas[-1])
    return alphas, betas, start


def test_the_reach_bounds_the_mass_beyond_a_place():
    values = np.linspace(-1, 1, 300)
    for seed in range(5):
        alphas, betas, start = lanczos(values, 25, seed)
        for side in (1, -1):
            for place in (0.7, 0.9, 0.999, 1.1, 2.0):
                reach = Reach(side * place, side)
                for alpha, beta in zip(alphas, betas, strict=True):
                    reach.update(alpha, beta)
                if not reach.passed:
                    mass = float((start[side * values >= place] ** 2).sum())
                    assert mass <= math.exp(-reach.log_sum) * (1 + 1e-10)


def test_the_bound_fails_about_as_often_as_it_says():
    """An isolated eigenvalue, and steps at which the bound comes close to it."""
    values = np.append(np.linspace(-1, 1, 400), 1.05)
    for failure in (0.5, 0.1):
        wrong = 0
        for seed in range(120):
            alphas, betas, _ = lanczos(values, 14, seed)
            wrong += unseen_beyond(alphas, betas, side=1, size=len(values), failure=failure) < 1.05
        assert wrong / 120 < failure + 3 * (failure / 120) ** 0.5


def test_the_least_share_is_a_bound_for_the_probability():
    draws = torch.randn(20000, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shares = draws[:, 0].square() / draws.square().sum(dim=1)
    for failure in (0.3, 0.1, 0.03):
        assert float((shares.log() < log_least_share(40, failure)).double().mean()) <= failure + 0.01


def heisenberg_ring(size):
    """Antiferromagnetic ring of spins 1/2, dense."""
    states = torch.arange(2**size)
    H = torch.zeros(2**size, 2**size, dtype=torch.float64)
    for i in range(size):
        j = (i + 1) % size
        one, other = (states >> i) & 1, (states >> j) & 1
        H[states, states] += torch.where(one == other, 0.25, -0.25).double()
        flipped = states ^ ((1 << i) | (1 << j))
        different = one != other
        H[states[different], flipped[different]] += 0.5
    return H


def grid(sides):
    """Eigenvalues of the Laplacian of a grid with zero boundary values."""
    total = np.zeros(1)
    for side in sides:
        total = np.add.outer(total, 2 - 2 * np.cos(np.pi * np.arange(1, side + 1) / (side + 1))).ravel()
    return torch.diag(torch.from_numpy(total))


FAMILIES = {
    "spin ring": lambda: heisenberg_ring(7),
    "cube": lambda: grid((6, 6, 6)),
    "triples": lambda: torch.diag(torch.linspace(1, 0, 80, dtype=torch.float64).repeat(3)),
    "null modes": lambda: torch.diag(torch.cat([torch.zeros(6), 0.01 * torch.arange(1, 195) ** 1.5]).double()),
    "fifty times, once": lambda: torch.diag(torch.tensor([50.0] * 20 + [1.0] * 180, dtype=torch.float64)),
    "projection": lambda: torch.diag(torch.tensor([1.0] * 30 + [0.0] * 170, dtype=torch.float64)),
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("which", ["LM", "LA", "SA", "BE"])
def test_copies_are_not_missed(name, which):
    A = FAMILIES[name]()
    exact = torch.linalg.eigvalsh(A)
    for k, tol in ((3, 1e-3), (8, 1e-8))[which in ("LM", "BE") :]:
        found = cs.eigsh(A, k=k, which=which, method="krylov", tol=tol, progress=False)
        assert found.status.converged, found.status
        expected = {
            "LM": exact.abs().sort(descending=True).values[:k],
            "LA": exact.flip(0)[:k],
            "SA": exact[:k],
            "BE": torch.cat([exact.flip(0)[: k - k // 2], exact[: k // 2]]),
        }[which]
        values = found.eigenvalues.abs() if which == "LM" else found.eigenvalues
        allowed = tol * expected.abs().sort().values + 1e-10
        assert bool(((values.sort().values - expected.sort().values).abs() <= allowed).all()), (values, expected)


@pytest.mark.parametrize("ncv", [12, 16, 40])
def test_simple_eigenvalues_with_the_smallest_bases(ncv):
    exact = torch.arange(1, 401, dtype=torch.float64) ** -0.7
    exact[2::3] *= -1
    for seed in range(2):
        found = cs.eigsh(torch.diag(exact), k=8, method="krylov", ncv=ncv, tol=1e-10, seed=seed, progress=False)
        assert found.status.converged, found.status
        torch.testing.assert_close(found.eigenvalues, exact[:8], rtol=1e-9, atol=0)


@pytest.mark.parametrize(("m", "n"), [(300, 200), (200, 300)])
def test_singular_values_with_copies(m, n):
    values = torch.linspace(1, 0, 60, dtype=torch.float64).repeat_interleave(3)
    A = torch.zeros(m, n, dtype=torch.float64)
    A[:180, :180] = torch.diag(values)
    found = cs.svds(A, k=8, tol=1e-6, progress=False)
    assert found.status.converged, found.status
    torch.testing.assert_close(found.S, values[:8], rtol=1e-6, atol=0)
    assert "singular value above" in found.status.text


def test_the_status_says_what_was_shown_and_its_price():
    A = torch.diag(torch.arange(1, 401, dtype=torch.float64) ** -1.0)
    found = cs.eigsh(A, k=5, method="krylov", progress=False)
    assert "no eigenvalue of magnitude above 1." in found.status.text
    assert "except with probability 1e-3" in found.status.text
    assert 0 < found.cost.completeness_products < found.cost.certificate_products
    assert f"+ {found.cost.completeness_products} for completeness" in str(found)
    lowest = cs.eigsh(A, k=2, which="SA", method="krylov", progress=False)
    assert "no eigenvalue below" in lowest.status.text


def test_too_small_a_budget_for_the_search_is_no_convergence():
    A = torch.diag(torch.linspace(0, 1, 500, dtype=torch.float64))
    whole = cs.eigsh(A, k=3, method="krylov", progress=False)
    assert whole.status.converged
    found = cs.eigsh(A, k=3, method="krylov", max_products=whole.cost.products + 2, progress=False)
    assert found.status.code == "partly"
    assert "raise max_products" in found.status.text


def test_a_basis_of_the_whole_space_needs_no_search():
    found = cs.eigsh(torch.eye(30, dtype=torch.float64), k=30, method="krylov", progress=False)
    assert found.status.converged
    assert found.cost.completeness_products == 0
    assert "whole space" in found.status.text


@pytest.mark.parametrize("decompose", [small_svd, _by_dilation])
@pytest.mark.parametrize("shape", [(6, 6), (9, 5), (5, 9)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_small_decompositions(decompose, shape, dtype):
    made = torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    for matrix in (made, made[:, :2] @ made[:2], torch.eye(*shape, dtype=dtype), torch.zeros(*shape, dtype=dtype)):
        U, S, V = decompose(matrix)
        torch.testing.assert_close(U * S @ V, matrix, rtol=0, atol=1e-12)
        for columns in (U, V.mH):
            torch.testing.assert_close(columns.mH @ columns, torch.eye(min(shape), dtype=dtype), rtol=0, atol=1e-12)


def test_a_failing_decomposition_loses_nothing(monkeypatch):
    """LAPACK's gesdd may not converge where values have many copies."""
    failing, real = [], torch.linalg.svd

    def svd(matrix, **options):
        if len(failing) < 2:
            failing.append(matrix)
            raise torch.linalg.LinAlgError("did not converge")
        return real(matrix, **options)

    monkeypatch.setattr(torch.linalg, "svd", svd)
    matrix = torch.diag(torch.tensor([3.0, 3.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(small_svd(matrix)[1], torch.tensor([3.0, 3.0, 1.0], dtype=torch.float64))
    assert len(failing) == 2


def band(count, size):
    """Eigenvalues of a path, its top ones far less than tol apart; and a narrow band above a gap."""
    i = np.arange(1, size + 1)
    path = 2 - 2 * np.cos(np.pi * i / (size + 1))
    top = 10 + 0.05 * np.cos(np.pi * np.arange(count) / count)
    return torch.diag(torch.from_numpy(np.concatenate([top, path[: size - count]])))


DENSE_EDGES = {
    "path": lambda: torch.diag(torch.from_numpy(2 - 2 * np.cos(np.pi * np.arange(1, 801) / 801))),
    "band of 40": lambda: band(40, 600),
    "band of 60": lambda: band(60, 600),
    "ladder": lambda: grid((300, 2)),
}


@pytest.mark.parametrize("name", DENSE_EDGES)
def test_values_at_dense_edges_are_within_the_tolerance(name):
    A, tol = DENSE_EDGES[name](), 1e-3
    exact = A.diagonal().sort(descending=True).values
    for k, seed in [(5, seed) for seed in range(6)] + [(20, 0)]:
        found = cs.eigsh(A, k=k, which="LA", method="krylov", tol=tol, seed=seed, progress=False)
        assert found.status.converged, found.status
        assert float(((exact[:k] - found.eigenvalues) / exact[:k]).max()) <= tol
