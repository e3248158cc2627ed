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
