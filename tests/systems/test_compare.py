"""Distances of approximations against dense float64 matrices."""

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument

torch.manual_seed(0)
MODEL = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
LOSS, DATA = nn.CrossEntropyLoss(), [(torch.randn(30, 3).double(), torch.arange(30) % 3)]
G, H = cs.ggn(MODEL, LOSS, DATA), cs.hessian(MODEL, LOSS, DATA)
DENSE = G.to_dense()
SIZE = len(DENSE)


def top(matrix, k):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors[:, values.abs().argsort(descending=True)[:k]]


def approximations():
    solution = cs.eigsh(G, 6, method="exact")
    diagonal = DENSE.diagonal().contiguous()
    symmetric = DENSE + 0.01 * torch.eye(SIZE).double() + 0.001 * torch.ones(SIZE, SIZE).double()
    low_rank = top(DENSE, 6) @ top(DENSE, 6).T @ DENSE
    return {
        "diagonal": (diagonal, torch.diag(diagonal)),
        "diagonal by name": (G.parameters.unflatten(diagonal), torch.diag(diagonal)),
        "solution": (solution, low_rank),
        "low rank": (solution.low_rank(0.1), low_rank + 0.1 * torch.eye(SIZE).double()),
        "dense": (symmetric, symmetric),
        "Hessian": (H, H.to_dense()),
    }


@pytest.mark.parametrize("name", ["diagonal", "diagonal by name", "solution", "low rank", "dense", "Hessian"])
def test_agrees_with_dense_matrices(name):
    given, dense = approximations()[name]
    right = torch.randn(SIZE, 3, generator=torch.Generator().manual_seed(3)).double()
    found = cs.compare(G, given, k=5, num_probes=300, damping=0.5, vectors=right, tol=1e-9)
    error = float((DENSE - dense).norm())
    low, high = found.frobenius.bounds(0.999)
    assert low <= error <= high
    assert abs(found.frobenius.error - error) < 5 * found.frobenius.error_stderr + 1e-12
    for j in range(1, 6):
        expected = float((top(DENSE, j).T @ top(dense, j)).square().sum()) / j
        assert abs(float(found.overlap[j - 1]) - expected) < 1e-5
    shift = 0.5 * torch.eye(SIZE).double()
    exact, approximate = (torch.linalg.solve(matrix + shift, right) for matrix in (DENSE, dense))
    torch.testing.assert_close(
        found.inverse_errors, (exact - approximate).norm(dim=0) / exact.norm(dim=0), rtol=1e-3, atol=1e-7
    )
    for layer, place in G.parameters.slices.items():
        relative = float((DENSE - dense)[place].norm() / DENSE[place].norm())
        assert abs(found.layers[layer] - relative) < 0.25 * relative + 1e-7


def test_the_matrix_itself_has_no_error():
    found = cs.compare(G, G, k=3, damping=0.1)
    assert found.frobenius.error == 0
    assert bool((found.overlap > 1 - 1e-6).all())
    assert float(found.inverse_errors.max()) < 1e-2
    assert max(found.layers.values()) == 0


def test_a_low_rank_captures_no_more_than_its_rank():
    found = cs.compare(G, cs.eigsh(G, 2, method="exact"), k=4, solution=cs.eigsh(G, 4, method="exact"))
    torch.testing.assert_close(found.overlap, torch.tensor([1, 1, 2 / 3, 2 / 4]).double(), rtol=1e-6, atol=0)
    assert len(found.inverse_errors) == 0


def test_what_cannot_be_compared_is_named():
    with pytest.raises(InvalidArgument, match="shape and device"):
        cs.compare(G, torch.eye(3).double())
    with pytest.raises(InvalidArgument, match="a diagonal of shape"):
        cs.compare(G, torch.ones(3).double())
    with pytest.raises(InvalidArgument, match="damping="):
        cs.compare(G, G, vectors=torch.ones(SIZE).double())
    with pytest.raises(InvalidArgument, match="2 pairs"):
        cs.compare(G, G, solution=cs.eigsh(G, 2))
    with pytest.raises(InvalidArgument, match="no named parameters"):
        cs.compare(torch.eye(3), {"weight": torch.ones(3)})
