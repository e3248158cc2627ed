"""Complex Hermitian operators: every order, exact and Krylov, against dense decompositions."""

from dataclasses import replace

import pytest
import torch

import curvscope as cs
from curvscope.certificates import captured_mass, overlap_bracket
from curvscope.errors import InvalidArgument
from curvscope.tall import InMemory


def hermitian(size, dtype=torch.complex128, *, copies=1):
    generator = torch.Generator().manual_seed(size)
    values = torch.linspace(1, -0.8, size // copies, dtype=torch.float64).repeat_interleave(copies)
    U = torch.linalg.qr(torch.randn(size, size, dtype=torch.complex128, generator=generator)).Q
    A = (U * values) @ U.mH
    return ((A + A.mH) / 2).to(dtype)


@pytest.mark.parametrize("method", ["exact", "krylov"])
@pytest.mark.parametrize("which", ["LM", "LA", "SA", "BE"])
@pytest.mark.parametrize("copies", [1, 3])
def test_against_a_dense_decomposition(method, which, copies):
    A = hermitian(90, copies=copies)
    exact = torch.linalg.eigvalsh(A)
    found = cs.eigsh(A, k=5, which=which, method=method, progress=False, **({"tol": 1e-8} if method == "krylov" else {}))
    expected = {
        "LM": exact[exact.abs().argsort(descending=True)][:5],
        "LA": exact.flip(0)[:5],
        "SA": exact[:5],
        "BE": torch.cat([exact.flip(0)[:3], exact[:2]]),
    }[which]
    assert found.status.converged, found.status
    torch.testing.assert_close(found.eigenvalues.sort().values, expected.sort().values, rtol=1e-7, atol=1e-10)
    V = found.eigenvectors.to_tensor()
    assert float((A @ V - V * found.eigenvalues).norm(dim=0).max()) < 2e-8
    assert float((V.mH @ V - torch.eye(5)).abs().max()) < 1e-12


def test_single_precision_restarts_and_numpy():
    A = hermitian(300, torch.complex64)
    found = cs.eigsh(A.numpy(), k=4, method="krylov", ncv=16, progress=False)
    assert found.status.converged, found.status
    exact = torch.linalg.eigvalsh(A)
    assert (
        float((found.eigenvalues.sort().values - exact[exact.abs().argsort(descending=True)][:4].sort().values).abs().max())
        < 1e-3
    )


def test_methods_for_real_operators_say_what_to_use():
    with pytest.raises(InvalidArgument, match='method="krylov" or "exact"'):
        cs.eigsh(hermitian(20), k=2, method="nystrom")


@pytest.mark.parametrize("which", ["LM", "LA", "SA", "BE"])
@pytest.mark.parametrize("copies", [1, 3])
def test_certificates_hold(which, copies):
    A = hermitian(150, copies=copies)
    exact = torch.linalg.eigvalsh(A)
    for seed in range(3):
        found = cs.eigsh(A, k=6, which=which, method="krylov", tol=1e-6, seed=seed, progress=False)
        proven = cs.certify(A, found, steps=100, seed=seed, progress=False)
        distance = torch.maximum(proven.intervals[:, :1] - exact, exact - proven.intervals[:, 1:]).clamp(min=0).amin(dim=1)
        assert float(distance.max()) < 1e-14
        V = proven.eigenvectors.to_tensor()
        P = torch.eye(150) - V @ V.mH
        rest = torch.linalg.eigvalsh(P @ A @ P)
        tail = proven.certificate.tail
        assert float(rest.abs().max()) <= tail.bound + 1e-12
        if which != "LM":
            assert tail.below - 1e-12 <= float(rest[0])
            assert float(rest[-1]) <= tail.above + 1e-12
        if copies == 1:
            assert proven.certificate.complete == 6


def test_certificates_of_single_precision_and_of_wrong_pairs():
    A = hermitian(200, torch.complex64)
    found = cs.eigsh(A, k=4, method="krylov", progress=False)
    assert cs.certify(A, found, steps=120, progress=False).certificate.complete == 4
    A = hermitian(200)
    all_five = cs.eigsh(A, k=5, method="krylov", tol=1e-8, progress=False)
    missing = replace(
        all_five,
        eigenvalues=all_five.eigenvalues[1:],
        eigenvectors=InMemory(all_five.eigenvectors.columns(1, 5)),
        residual_norms=all_five.residual_norms[1:],
    )
    assert cs.certify(A, missing, steps=120, progress=False).certificate.complete == 0


def test_overlaps_of_complex_pairs_have_true_bounds():
    A = hermitian(80)
    proven = cs.certify(A, cs.eigsh(A, k=5, method="krylov", tol=1e-6, progress=False), progress=False)
    values, vectors = torch.linalg.eigh(A)
    V = vectors[:, values.abs().argsort(descending=True)[:4]]
    lower, upper = overlap_bracket(captured_mass(proven.eigenvectors.rows(torch.arange(5))), proven.certificate)
    true = float(V[:4].abs().square().sum()) / 4
    assert float(lower[3]) - 1e-12 <= true <= float(upper[3]) + 1e-12
    assert float(upper[3] - lower[3]) < 1e-4


def test_estimators_name_what_takes_complex_operators():
    with pytest.raises(InvalidArgument, match="certify take complex ones"):
        cs.trace(hermitian(20), progress=False)
