"""Functions of pytrees of tensors: Hessians, Gauss-Newton and Fisher matrices against torch.func and closed forms."""

from collections import namedtuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType


def double(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def dense(operator: cs.Operator) -> Tensor:
    return operator @ torch.eye(operator.shape[1], dtype=torch.float64)


@pytest.mark.parametrize("strategy", ["auto", "double_backward", "split_vmap"])
def test_a_log_density_of_nested_parameters(strategy):
    torch.manual_seed(0)
    x = double(20)

    def log_density(p: dict) -> Tensor:
        scale = p["prior"]["log_scale"].exp()
        return -0.5 * (((x - p["means"][0]) / scale) ** 2).sum() - 20 * p["prior"]["log_scale"] - p["means"][1].pow(4).sum()

    p = {"means": [double(), double(3)], "prior": {"log_scale": double()}, "name": "normal"}
    H = cs.hessian(log_density, p, strategy=strategy)
    assert H.parameters.names == ("means.0", "means.1", "prior.log_scale")

    def flat(v: Tensor) -> Tensor:
        return log_density({"means": [v[0], v[1:4]], "prior": {"log_scale": v[4]}, "name": "normal"})

    at = torch.cat([p["means"][0][None], p["means"][1], p["prior"]["log_scale"][None]])
    expected = torch.func.hessian(flat)(at)
    torch.testing.assert_close(dense(H), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(H.gradient(), torch.func.grad(flat)(at))
    part = cs.hessian(log_density, p, params="means.*")
    torch.testing.assert_close(dense(part), expected[:4, :4], rtol=1e-10, atol=1e-12)


def test_names_of_paths_are_used_everywhere():
    torch.manual_seed(0)
    Pair = namedtuple("Pair", "left right")
    p = {"layers": [Pair(double(3), double(2)), Pair(double(3), double(2))], "index": torch.tensor([1, 0])}

    def f(p: dict) -> Tensor:
        total = sum(layer.left.pow(4).sum() + layer.right[p["index"]].pow(3)[0] for layer in p["layers"])
        return total + (p["layers"][0].left * p["layers"][1].left).sum()

    H = cs.hessian(f, p, params=["layers.0.*", "layers.1.left"])
    assert H.parameters.names == ("layers.0.left", "layers.0.right", "layers.1.left")
    solution = cs.eigsh(H, k=2, progress=False)
    assert list(solution.vector(0)) == list(H.parameters.names)
    expected = torch.linalg.eigvalsh(dense(H))
    torch.testing.assert_close(solution.eigenvalues, expected[expected.abs().argsort(descending=True)][:2])
    torch.testing.assert_close(dense(H.submatrix("layers.1.*")), dense(H)[5:, 5:])


def test_an_input_hessian_of_a_network_and_changes_in_place():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double(), double(2, 3)

    def f(x: Tensor) -> Tensor:
        return net(x).square().sum()

    H = cs.hessian(f, x)
    assert H.parameters.names == ("parameters",)
    torch.testing.assert_close(dense(H), torch.func.hessian(f)(x).reshape(6, 6))
    before = H.fingerprint
    x.add_(1)
    H.move()
    torch.testing.assert_close(dense(H), torch.func.hessian(f)(x).reshape(6, 6))
    assert H.fingerprint != before
    assert not x.requires_grad


def test_functions_of_parameters_and_batches():
    torch.manual_seed(0)
    p, x, y = [{"w": double(3, 2)}, double(2)], double(6, 3), torch.randint(2, (6,))

    def network(p: list, x: Tensor) -> Tensor:
        return torch.tanh(x @ p[0]["w"]) + p[1]

    def loss(p: list, batch: tuple) -> Tensor:
        return functional.cross_entropy(network(p, batch[0]), batch[1])

    class Same(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.b = nn.Parameter(p[0]["w"].clone()), nn.Parameter(p[1].clone())

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x @ self.w) + self.b

    data, ce = [(x[:4], y[:4]), (x[4:], y[4:])], nn.CrossEntropyLoss()
    expected = dense(cs.hessian(Same(), ce, data))
    torch.testing.assert_close(dense(cs.hessian(loss, p, data)), expected)
    torch.testing.assert_close(dense(cs.hessian(network, p, data, criterion=ce)), expected)
    for kind in (cs.ggn, cs.empirical_fisher, cs.monte_carlo_fisher):
        torch.testing.assert_close(dense(kind(network, p, data, criterion=ce)), dense(kind(Same(), ce, data)))
        with pytest.raises(InvalidArgument, match="criterion="):
            kind(loss, p, data)
    found, same = cs.gradient_second_moment(loss, p, data), cs.gradient_second_moment(Same(), ce, data)
    torch.testing.assert_close(dense(found), dense(same))
    assert cs.preflight(cs.hessian(loss, p, data)).passed


def test_what_is_no_function_of_parameters_is_said():
    def f(p: Tensor) -> Tensor:
        return p.sum() ** 2

    with pytest.raises(InvalidType, match="no floating-point tensor"):
        cs.hessian(f, {"a": 1.0})
    with pytest.raises(InvalidType, match="no floating-point tensor"):
        cs.hessian(f, nn.MSELoss(), [torch.ones(3)])
    with pytest.raises(InvalidType, match="NumPy array"):
        cs.hessian(f, [torch.ones(2).numpy()])
    with pytest.raises(InvalidType, match="data is missing"):
        cs.hessian(nn.Linear(2, 1), nn.MSELoss())
    with pytest.raises(InvalidArgument, match=r"shape \(3,\).*expected a scalar"):
        cs.hessian(lambda p: p**2, torch.ones(3))
    with pytest.raises(InvalidArgument, match="dropout= is for models"):
        cs.hessian(f, torch.ones(3), dropout=1)
    with pytest.raises(InvalidArgument, match=r"two tensors have the name 'a\.b'"):
        cs.hessian(f, {"a.b": torch.ones(1), "a": {"b": torch.ones(1)}})
    with pytest.raises(InvalidArgument, match="pass it as the loss"):
        cs.hessian(nn.Linear(2, 1), nn.MSELoss(), [(torch.ones(1, 2), torch.ones(1, 1))], criterion=nn.MSELoss())


def test_losses_that_return_more_than_the_loss_are_told_what_to_do():
    def loss(model: nn.Module, batch: tuple) -> tuple:
        output = model(batch[0])
        return functional.mse_loss(output, batch[1]), {"output": output}

    data = [(torch.ones(2, 3), torch.ones(2, 1))]
    with pytest.raises(InvalidArgument, match=r"first of 2 items.*lambda model, batch: loss\(model, batch\)\[0\]"):
        cs.hessian(nn.Linear(3, 1), loss, data)
    with pytest.raises(InvalidArgument, match="first of 2 items"):
        cs.hessian(lambda p: (p.sum() ** 2, p), torch.ones(3))
