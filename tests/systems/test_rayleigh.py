"""Matrices in given bases, and sums of matrices at different checkpoints, against dense ones."""

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType


def vectors(size, count, seed=1):
    return torch.randn(size, count, generator=torch.Generator().manual_seed(seed)).double()


HALF = vectors(60, 60, 5)
A = HALF + HALF.T


@pytest.mark.parametrize("count", [1, 3, 40])
@pytest.mark.parametrize("scale", [1.0, 1e-8])
def test_any_basis_gives_the_dense_matrix_ritz_values_and_residuals(count, scale):
    Q = vectors(60, count) * torch.logspace(0, -3, count).double()
    found = cs.rayleigh_quotient(scale * A, Q)
    orthonormal, _ = torch.linalg.qr(Q)
    torch.testing.assert_close(found.matrix, scale * Q.T @ A @ Q, rtol=1e-10, atol=scale * 1e-12)
    ritz = torch.linalg.eigvalsh(orthonormal.T @ A @ orthonormal).flip(0)
    torch.testing.assert_close(found.eigenvalues, scale * ritz, rtol=1e-8, atol=scale * 1e-9)
    images = scale * A @ Q
    outside = images - orthonormal @ (orthonormal.T @ images)
    torch.testing.assert_close(found.residual_norms, outside.norm(dim=0), rtol=1e-7, atol=scale * 1e-11)
    assert found.products == count


def test_an_invariant_space_has_no_residual():
    solution = cs.eigsh(A, 4, tol=1e-10)
    for basis in (
        solution,
        solution.eigenvectors,
        solution.eigenvectors.to_tensor(),
        solution.eigenvectors.to_tensor().numpy(),
    ):
        found = cs.rayleigh_quotient(A, basis)
        assert float(found.residual_norms.max()) < 1e-7
        torch.testing.assert_close(found.eigenvalues, solution.eigenvalues.sort(descending=True).values)
        torch.testing.assert_close(found.matrix, torch.diag(solution.eigenvalues), atol=1e-9, rtol=0)
    assert cs.rayleigh_quotient(A, torch.ones(60).double()).matrix.shape == (1, 1)


def test_what_is_no_basis_is_refused():
    for basis, words in ((vectors(5, 2), "shape"), (torch.ones(60, 2).double(), "depend"), (vectors(60, 1) * torch.nan, "NaN")):
        with pytest.raises(InvalidArgument, match=words):
            cs.rayleigh_quotient(A, basis)
    with pytest.raises(InvalidType, match="basis"):
        cs.rayleigh_quotient(A, "top")


@pytest.mark.parametrize("make", [cs.hessian, cs.ggn])
def test_sums_take_each_checkpoint_at_its_own_weights(make):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    data = [(torch.randn(12, 3).double(), torch.arange(12) % 2)]
    operators, dense = [], []
    for step in range(3):
        operators.append(make(model, nn.CrossEntropyLoss(), data, weights="copy"))
        dense.append(make(model, nn.CrossEntropyLoss(), data).to_dense().clone())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * (step + 1))
    merged = 0.5 * operators[0] + 0.3 * operators[1] - 0.2 * operators[2]
    truth = 0.5 * dense[0] + 0.3 * dense[1] - 0.2 * dense[2]
    assert float((dense[0] - dense[2]).norm()) > 1e-2 * float(dense[0].norm())
    torch.testing.assert_close(merged.to_dense(), truth, atol=1e-12, rtol=1e-9)
    solution = cs.eigsh(merged, 3, tol=1e-8)
    values = torch.linalg.eigvalsh(truth)
    expected = values[values.abs().argsort(descending=True)[:3]]
    torch.testing.assert_close(solution.eigenvalues, expected, rtol=1e-6, atol=1e-10)
