"""Complex Hermitian operators: every order, exact and Krylov, against dense decompositions."""

import pytest
import torch

import curvscope as cs
from curvscope.errors import InvalidArgument


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
