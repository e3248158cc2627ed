"""The public check tells right, wrong and missing second derivatives apart."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from curvscope.testing import check_second_derivatives


class WrongBackward(torch.autograd.Function):
    """x^3 whose backward has no derivative in x."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 3 * x.detach() ** 2


class WrongGradient(WrongBackward):
    """x^3 with the gradient of x^2."""

    @staticmethod
    def backward(ctx, g):
        return g * 2 * ctx.saved_tensors[0]


class Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, h):
        return self.function(h)


def network(function, out=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), Applied(function), nn.Linear(4, out))


BATCH = torch.arange(15.0).view(5, 3) / 10, torch.arange(5) % 3


def test_a_smooth_network_is_right_by_every_route():
    found = check_second_derivatives(network(torch.tanh), nn.CrossEntropyLoss(), BATCH)
    assert found.passed
    assert {verdict.outcome for verdict in found.routes.values()} == {"right"}
    assert found.oracle_error < 1e-8


def test_wrong_forward_derivatives_are_told_apart():
    index = torch.tensor([0, 1, 0, 1]).expand(5, 4)
    model = network(lambda h: torch.ones(5, 4, dtype=h.dtype).scatter_reduce(1, index, h, "prod"))
    found = check_second_derivatives(model, nn.CrossEntropyLoss(), BATCH)
    assert found.passed
    assert found.routes["double backward"].outcome == "right"
    assert found.routes["forward over reverse"].outcome == found.routes["vmap"].outcome == "wrong"
    assert "wrong, relative error" in str(found)


def test_third_derivatives_of_layer_norm():
    def forces(model, batch):
        x = batch.clone().requires_grad_()
        return (torch.autograd.grad(model(x).sum(), x, create_graph=True)[0] - 1).square().mean()

    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.LayerNorm(4), nn.Linear(4, 1))
    found = check_second_derivatives(model, forces, BATCH[0])
    assert found.passed
    assert found.routes["double backward"].outcome == "wrong"
    assert found.routes["vmap"].outcome == "refused"


def test_padding_rows_are_held_fixed():
    model = nn.Sequential(nn.Embedding(5, 3, padding_idx=0), nn.Flatten(), nn.Tanh(), nn.Linear(6, 3))
    found = check_second_derivatives(model, nn.CrossEntropyLoss(), (torch.tensor([[0, 1], [2, 0]]), torch.tensor([0, 2])))
    assert found.passed
    assert found.routes["forward over reverse"].outcome == "wrong"


@pytest.mark.parametrize("function", [WrongBackward, WrongGradient])
def test_the_users_own_mistakes_do_not_pass(function):
    found = check_second_derivatives(network(function.apply), nn.CrossEntropyLoss(), BATCH)
    assert not found.passed
    assert found.gradient.outcome == ("wrong" if function is WrongGradient else "right")


def test_a_gradient_alone_can_be_wrong():
    assert (
        check_second_derivatives(network(torch.tanh, 1), F.mse_loss, (BATCH[0], torch.ones(5, 1))).gradient.outcome == "right"
    )
