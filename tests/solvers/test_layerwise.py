"""Eigenpairs of diagonal blocks, against the blocks of the dense matrix."""

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType


@pytest.fixture(scope="module")
def hessian():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 9), nn.Tanh(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 3, bias=False)).double()
    return cs.hessian(model, nn.CrossEntropyLoss(), [(torch.randn(30, 8).double(), torch.randint(3, (30,)))])


@pytest.mark.parametrize("k", [1, 3, 100])
def test_every_block_has_its_own_pairs(hessian, k):
    dense = hessian @ torch.eye(hessian.shape[0], dtype=torch.float64)
    found = cs.eigsh_by_layer(hessian, k)
    assert list(found) == ["0", "2", "4"]
    for name, solution in found.items():
        rows = torch.cat([torch.arange(s.start, s.stop) for p, s in hessian.parameters.slices.items() if p.startswith(name)])
        exact = torch.linalg.eigvalsh(dense[rows][:, rows])
        exact = exact[exact.abs().argsort(descending=True)][: min(k, len(rows))]
        assert solution.status.converged
        assert solution.k == len(exact)
        assert torch.allclose(solution.eigenvalues.abs(), exact.abs(), rtol=1e-5, atol=1e-10)
        assert set(solution.vector(0)) == {p for p in hessian.parameters.names if p.startswith(name)}


def test_layers_of_ones_own(hessian):
    found = cs.eigsh_by_layer(hessian, 1, layers={"ends": ["0.*", "4.*"], "biases": "*.bias"}, which="LA")
    assert found["ends"].eigenvectors.shape[0] == 8 * 9 + 9 + 7 * 3
    assert found["biases"].eigenvectors.shape[0] == 9 + 7


def test_what_has_no_layers_is_refused(hessian):
    with pytest.raises(InvalidType, match="operator is of type Tensor: pass one of type"):
        cs.eigsh_by_layer(torch.eye(4), 1)
    with pytest.raises(InvalidArgument, match="k=0"):
        cs.eigsh_by_layer(hessian, 0)
    with pytest.raises(InvalidArgument, match="matches none"):
        cs.eigsh_by_layer(hessian, 1, layers={"head": "head.*"})
