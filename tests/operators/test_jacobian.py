"""Jacobians as operators, against one backward pass an output."""

import pytest
import torch
from torch import Tensor, nn

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType


def rows_of(model: nn.Module, x: Tensor) -> Tensor:
    rows = [torch.autograd.grad(entry, list(model.parameters()), retain_graph=True) for entry in model(x).flatten()]
    return torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])


def test_jacobians_of_networks():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double(), torch.randn(5, 3).double()
    expected = rows_of(model, x)
    y = torch.zeros(5)
    for data in ([x], [x[:3], x[3:]], [(x[:3], y[:3]), (x[3:], y[3:])]):
        J = cs.jacobian(model, data)
        assert J.shape == (10, 26)
        torch.testing.assert_close(J @ torch.eye(26).double(), expected)
        torch.testing.assert_close(torch.eye(10).double() @ J, expected)
    J = cs.jacobian(model, [x])
    solution = cs.svds(J, k=2, progress=False)
    torch.testing.assert_close(solution.S, torch.linalg.svdvals(expected)[:2], rtol=1e-4, atol=0)
    part = cs.jacobian(model, [x], params="2.*")
    torch.testing.assert_close(part @ torch.eye(10).double(), expected[:, 16:])
    assert part.parameters.names == ("2.weight", "2.bias")
    assert J.fingerprint != cs.jacobian(model, [2 * x]).fingerprint
    # the Gauss-Newton matrix of a squared error
    G = cs.ggn(model, nn.MSELoss(reduction="sum"), [(x, torch.zeros(5, 2).double())], strategy="double_backward")
    torch.testing.assert_close(G @ torch.eye(26).double(), 2 * expected.T @ expected)


def test_jacobians_of_functions():
    torch.manual_seed(1)
    p = {"a": torch.randn(3).double(), "b": [torch.randn(2).double()]}

    def f(p: dict) -> Tensor:
        return torch.outer(p["a"].sin(), p["b"][0] ** 2)

    J = cs.jacobian(f, p)
    expected = torch.func.jacrev(lambda v: f({"a": v[:3], "b": [v[3:]]}))(torch.cat([p["a"], p["b"][0]])).reshape(6, 5)
    torch.testing.assert_close(J @ torch.eye(5).double(), expected)
    torch.testing.assert_close(J.adjoint_matmul(torch.eye(6).double()), expected.T)
    x = torch.randn(4, 3).double()
    J = cs.jacobian(lambda p, x: (x @ p["a"], x.sum(1) * p["b"][0][0]), p, [x])
    assert J.shape == (8, 5)
    torch.testing.assert_close((J @ torch.eye(5).double())[::2, :3], x)


def test_what_is_no_jacobian_is_said():
    with pytest.raises(InvalidType, match="no argument 'weight'"):
        cs.jacobian(nn.Linear(2, 1), [torch.ones(1, 2)], weight=len)
    with pytest.raises(InvalidArgument, match="no third argument"):
        cs.jacobian(nn.Linear(2, 1), [torch.ones(1, 2)], [torch.ones(1, 2)])


def test_one_batch_is_taken_as_one():
    torch.manual_seed(0)
    net, x, y = torch.nn.Linear(4, 3), torch.randn(6, 4), torch.randint(3, (6,))
    expected = cs.jacobian(net, [x]).to_dense()
    for form in ((x, y), x, [(x, y)], (x, torch.randn(6, 4))):
        assert torch.equal(cs.jacobian(net, form).to_dense(), expected)
    assert cs.jacobian(net, [x, x]).shape == (36, 15)  # a list holds batches
