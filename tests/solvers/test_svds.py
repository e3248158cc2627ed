"""svds against dense decompositions: values, vectors, spaces, rank deficiency, tiny scales, budgets."""

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

import curvscope as cs
from curvscope.errors import InvalidArgument


def matrix(m, n, values, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    high = torch.complex128 if dtype.is_complex else torch.float64
    U = torch.linalg.qr(torch.randn(m, len(values), generator=generator, dtype=high)).Q
    V = torch.linalg.qr(torch.randn(n, len(values), generator=generator, dtype=high)).Q
    return ((U * values) @ V.mH).to(dtype)


ALGEBRAIC = torch.arange(1, 121, dtype=torch.float64) ** -1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
@pytest.mark.parametrize("shape", [(400, 150), (150, 400), (200, 200)])
def test_against_a_dense_decomposition(dtype, shape):
    A = matrix(*shape, ALGEBRAIC, dtype)
    solution = cs.svds(A, k=10, tol=1e-4, ncv=40)
    exact_U, exact, exact_V = torch.linalg.svd(A.to(torch.complex128), full_matrices=False)
    unit = torch.finfo(dtype).eps
    assert solution.status.converged
    assert solution.S.dtype == torch.float64
    assert float((solution.S - exact[:10]).abs().max()) < 1e-8 + 20 * unit
    assert solution.diagnostics["orthogonality"] < 10 * unit
    U, V = (x.to_tensor().to(torch.complex128) for x in (solution.U, solution.V))
    assert U.shape == (shape[0], 10)
    assert V.shape == (shape[1], 10)
    high = A.to(torch.complex128)
    ahead, back = (high @ V - U * solution.S).norm(dim=0), (high.mH @ U - V * solution.S).norm(dim=0)
    measured = ((ahead.square() + back.square()) / 2).sqrt()
    torch.testing.assert_close(solution.residual_norms, measured, rtol=0.05, atol=10 * unit)
    # u and v belong together, phase included, and span the dense ones' spaces
    assert float((U.mH @ exact_U[:, :10]).abs().diagonal().min()) > 1 - 1e-5
    assert float(((U.mH @ exact_U[:, :10]).diagonal() - (V.mH @ exact_V[:10].mH).diagonal()).abs().max()) < 1e-3


def test_small_values_are_right_to_rounding_of_the_largest():
    """From A* A in float32, values below 3e-4 of the largest would be noise."""
    values = torch.cat([10.0 ** -torch.arange(0, 6, dtype=torch.float64), torch.full((50,), 1e-8, dtype=torch.float64)])
    A = matrix(300, 200, values, torch.float32)
    solution = cs.svds(A, k=6, tol=0, max_products=200)
    assert float((solution.S - values[:6]).abs().max()) < 5e-7
    assert abs(float(solution.S[4]) / 1e-4 - 1) < 5e-3


def test_multiple_values_and_rank_deficiency():
    values = torch.tensor([5.0, 5.0, 5.0, 2.0, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    A = matrix(120, 90, values)
    solution = cs.svds(A, k=12, tol=1e-8)
    assert solution.status.converged
    torch.testing.assert_close(solution.S[:8], values, rtol=1e-12, atol=0)
    assert float(solution.S[8:].max()) < 1e-14
    U, V = solution.U.to_tensor(), solution.V.to_tensor()
    for Q in (U, V):
        assert float((Q.T @ Q - torch.eye(12)).abs().max()) < 1e-12
    exact_U, _, exact_V = torch.linalg.svd(A, full_matrices=False)
    for ours, exact in ((U, exact_U), (V, exact_V.T)):
        torch.testing.assert_close(ours[:, :3] @ ours[:, :3].T, exact[:, :3] @ exact[:, :3].T, rtol=0, atol=1e-11)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12])
def test_scale_changes_nothing(scale):
    A = matrix(80, 60, ALGEBRAIC[:60])
    plain, scaled = cs.svds(A, k=5, tol=1e-6), cs.svds(scale * A, k=5, tol=1e-6)
    torch.testing.assert_close(scaled.S, scale * plain.S, rtol=1e-10, atol=0)
    assert scaled.cost.products == plain.cost.products


def test_zero_and_exhausted_spaces():
    solution = cs.svds(torch.zeros(7, 5), k=5)
    assert solution.S.tolist() == [0.0] * 5
    assert solution.status.converged
    A = torch.randn(6, 30, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    whole = cs.svds(A, k=6)
    torch.testing.assert_close(whole.S, torch.linalg.svdvals(A), rtol=1e-12, atol=0)


def test_restarts_need_few_columns_and_agree_with_scipy():
    A = matrix(500, 300, torch.arange(1, 301, dtype=torch.float64) ** -0.7)
    solution = cs.svds(A, k=8, tol=1e-6, block_size=2, ncv=24)
    assert solution.diagnostics["restarts"] > 0
    assert solution.diagnostics["asymmetry"] < 1e-12
    peer = np.sort(scipy.sparse.linalg.svds(A.numpy(), k=8, return_singular_vectors=False))[::-1]
    np.testing.assert_allclose(solution.S.numpy(), peer, rtol=1e-9)


def test_products_are_counted_and_bounded():
    calls = []

    class Counted:
        shape, dtype = (90, 70), np.dtype(np.float64)
        inner = matrix(90, 70, ALGEBRAIC[:70]).numpy()

        def __matmul__(self, block):
            calls.append(block.shape[1])
            return self.inner @ block

        def adjoint(self):
            other = Counted()
            other.shape, other.inner = (70, 90), self.inner.T
            return other

    solution = cs.svds(Counted(), k=5, tol=0, max_products=41)
    assert solution.cost.products == 40  # pairs of products: the odd one stays unused
    assert sum(calls) == 40 + 10 + 1  # and one for the fingerprint
    assert solution.cost.certificate_products == 10
    assert not cs.svds(Counted(), k=5, tol=1e-10, max_products=14).status.converged


def test_bad_requests_fail_before_any_product():
    A = torch.ones(4, 3)
    for options, message in [
        ({"k": 4}, r"k=4: choose an integer from 1 to min\(m, n\) = 3"),
        ({"k": 2, "tol": 1.0}, "tol=1.0: choose a number from 0 to below 1"),
        ({"k": 2, "max_products": 3}, "max_products=3 is less than 2 k = 4"),
        ({"k": 2, "block_size": 0}, "block_size=0: choose an integer of at least 1"),
        ({"k": 1, "block_size": 1, "ncv": 1}, "ncv=1: choose at least"),
    ]:
        with pytest.raises(InvalidArgument, match=message):
            cs.svds(A, **options)
