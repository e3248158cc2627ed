"""Low rank plus identity, against dense matrices."""

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope import testing
from curvscope.errors import InvalidArgument
from curvscope.tall import OnDisk


@pytest.fixture(scope="module")
def ggn():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    data = [(torch.randn(40, 6).double(), torch.randint(3, (40,)))]
    return cs.ggn(model, nn.CrossEntropyLoss(), data)


def dense(operator):
    return operator @ torch.eye(operator.shape[0], dtype=operator.dtype)


@pytest.fixture(scope="module")
def solution(ggn):
    return cs.eigsh(ggn, k=8, method="exact", progress=False)


def test_is_the_damped_truncation(ggn, solution):
    values, vectors = torch.linalg.eigh(dense(ggn))
    top = vectors[:, -8:]
    expected = top @ torch.diag(values[-8:]) @ top.T + 0.1 * torch.eye(len(values), dtype=values.dtype)
    found = dense(solution.low_rank(0.1))
    assert torch.allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("place", ["in memory", "on disk"])
def test_functions_are_those_of_the_dense_matrix(solution, place, tmp_path):
    approximation = solution.low_rank(0.01)
    if place == "on disk":
        stored = OnDisk.create(tmp_path / "V", *approximation.vectors.shape, torch.float64)
        stored.write(0, approximation.vectors.to_tensor())
        approximation = type(approximation)(stored, approximation.values, approximation.outside)
    whole = dense(approximation)
    identity = torch.eye(len(whole), dtype=whole.dtype)
    assert torch.allclose(dense(approximation.inverse()), torch.linalg.inv(whole), rtol=1e-9)
    root, inverse_root = dense(approximation.square_root()), dense(approximation.inverse_square_root())
    assert torch.allclose(root @ root, whole, atol=1e-12)
    assert float(torch.linalg.eigvalsh(root).min()) > 0
    assert torch.allclose(inverse_root @ whole @ inverse_root, identity, atol=1e-10)
    assert torch.allclose(approximation.diagonal(), whole.diagonal(), atol=1e-12)
    assert approximation.trace() == pytest.approx(float(whole.trace()))
    assert approximation.logdet() == pytest.approx(float(torch.linalg.slogdet(whole).logabsdet))


@pytest.mark.parametrize("check", testing.OPERATOR_CHECKS, ids=lambda check: check.__name__)
def test_conformance(check, solution):
    check(solution.low_rank(0.5))


def test_all_pairs_leave_nothing_outside():
    solution = cs.eigsh(torch.diag(torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64)), k=3)
    approximation = solution.low_rank()
    assert torch.allclose(dense(approximation.inverse()), torch.diag(torch.tensor([1 / 3, 1, 1 / 2], dtype=torch.float64)))
    assert approximation.logdet() == pytest.approx(torch.tensor(6.0).log().item())


def test_what_has_no_inverse_or_root_is_refused_with_a_way_out():
    solution = cs.eigsh(torch.diag(torch.tensor([3.0, -1.0, 0.5, 0.1], dtype=torch.float64)), k=2)
    with pytest.raises(InvalidArgument, match="singular and has no inverse"):
        solution.low_rank().inverse()
    with pytest.raises(InvalidArgument, match=r"1 of its 2 eigenvalues are negative.*larger damping"):
        solution.low_rank(0.5).square_root()
    with pytest.raises(InvalidArgument, match="logarithm"):
        solution.low_rank(0.5).logdet()
    assert torch.allclose(
        dense(solution.low_rank(0.5, positive=True).square_root()).diagonal().square(),
        torch.tensor([3.5, 0.5, 0.5, 0.5], dtype=torch.float64),
    )


def test_damping_is_that_of_the_indefinite_inverse():
    """A saddle's Hessian is invertible: minus signs stay."""
    solution = cs.eigsh(torch.diag(torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64)), k=2)
    assert torch.allclose(
        dense(solution.low_rank(0.25).inverse()).diagonal(), 1 / torch.tensor([3.25, -0.75, 0.25], dtype=torch.float64)
    )


@pytest.mark.parametrize("damping", [1e-4, 1e-2, 1.0])
def test_the_error_of_the_inverse_is_bounded_and_told(ggn, damping, caplog):
    certified = cs.certify(ggn, cs.eigsh(ggn, k=6, method="krylov", tol=1e-8, progress=False), progress=False)
    approximation = certified.low_rank(damping)
    whole = dense(ggn) + damping * torch.eye(ggn.shape[0], dtype=torch.float64)
    right = torch.randn(ggn.shape[0], 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = torch.linalg.solve(whole, right)
    off = ((approximation.inverse() @ right) - exact).norm(dim=0) / exact.norm(dim=0)
    worst = torch.linalg.matrix_norm(torch.linalg.solve(dense(approximation), dense(approximation) - whole), 2)
    assert float(off.max()) <= float(worst) <= approximation.inverse_error
    assert approximation.inverse_error < 2 * float(worst) + 1e-6
    assert approximation.inverse_error_estimate >= 0.99 * float(worst) or damping > 0.5
    assert ("cs.solve" in caplog.text) == (approximation.inverse_error_estimate > 0.01)
    assert approximation.inverse().inverse_error == pytest.approx(approximation.inverse_error)


def test_without_a_certificate_no_error_of_the_inverse_is_proven(ggn, solution):
    assert solution.low_rank(0.1).inverse_error == float("inf")
    assert 0 < solution.low_rank(0.1).inverse_error_estimate < float("inf")
    whole = cs.eigsh(ggn, k=ggn.shape[0], method="exact", progress=False)
    assert whole.low_rank(0.1).inverse_error < 1e-9


def test_negative_values_that_are_left_out_count_as_error():
    matrix = torch.diag(torch.tensor([3.0, -2.0, 0.1, 0.05], dtype=torch.float64))
    kept = cs.certify(matrix, cs.eigsh(matrix, 2, progress=False), progress=False).low_rank(1.0, positive=True)
    assert 2.0 <= kept.inverse_error < 2.01
