"""The loss Hessian of the GGN, which all routes share, against central differences of the loss's gradient."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import curvscope as cs
from curvscope.errors import UnverifiedDerivatives
from curvscope.operators.curvature import _gauss_newton as curvature

from .cases import WrongForward


class ForgetsItself(torch.autograd.Function):
    """x^3, with a backward that forgets that it depends on x."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(context, gradient):
        return 3 * context.saved_tensors[0].detach() ** 2 * gradient


class HalfRight(WrongForward):
    """A wrong rule for tangents, which matters where something follows."""

    FACTOR = 2.1


def network(scale=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        model[2].weight.mul_(scale)
    return model, torch.randn(9, 4).double()


@pytest.mark.parametrize("strategy", ["auto", "split", "double_backward"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_wrong_second_derivative_of_the_loss_is_refused(strategy, dtype):
    model, x = network()
    for function in (ForgetsItself, HalfRight):
        criterion = lambda output, target, cube=function.apply: cube(cube(output - target)).mean()  # noqa: E731
        G = cs.ggn(model, criterion, [(x, x[:, :3])], strategy=strategy, dtype=dtype)
        with pytest.raises(UnverifiedDerivatives, match="in the network's outputs is off by"):
            G @ torch.ones(51, dtype=dtype)


@pytest.mark.parametrize("factor", [1.001, 0.5, -1.0])
def test_a_wrong_closed_form_is_refused(monkeypatch, factor):
    right = curvature.loss_hessian

    def wrong(criterion):
        product = right(criterion)
        return lambda output, target, tangent: factor * product(output, target, tangent)

    monkeypatch.setattr(curvature, "loss_hessian", wrong)
    model, x = network()
    with pytest.raises(UnverifiedDerivatives, match=r"CrossEntropyLoss.* in the network's outputs is off by"):
        cs.ggn(model, nn.CrossEntropyLoss(), [(x, torch.arange(9) % 3)]) @ torch.ones(51).double()


CRITERIA = {
    "labels": (nn.CrossEntropyLoss(), torch.arange(9) % 3),
    "ignored": (nn.CrossEntropyLoss(ignore_index=0, label_smoothing=0.1), torch.arange(9) % 3),
    "weighted": (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 9.0, 0.1])), torch.arange(9) % 3),
    "probabilities": (nn.CrossEntropyLoss(), torch.rand(9, 3).softmax(1)),
    "squares": (nn.MSELoss(), torch.rand(9, 3)),
    "sum": (nn.MSELoss(reduction="sum"), torch.rand(9, 3)),
    "binary": (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 3.0])), torch.rand(9, 3)),
    "kinks": (nn.SmoothL1Loss(beta=0.2), torch.rand(9, 3)),
    "linear": (nn.L1Loss(), torch.rand(9, 3)),
    "hinge": (lambda output, target: functional.multi_margin_loss(output, target, p=2), torch.arange(9) % 3),
    "function": (lambda output, target: (1 + (output - target).square()).log().mean(), torch.rand(9, 3)),
    "scaled": (lambda output, target: 1e6 * functional.cross_entropy(output, target), torch.arange(9) % 3),
}


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4, 1e-6])
@pytest.mark.parametrize("name", CRITERIA)
def test_right_losses_pass(name, scale):
    """Also with saturated probabilities, whose curvature is far below the rounding of the gradient."""
    model, x = network(scale)
    criterion, target = CRITERIA[name]
    for dtype in (torch.float64, torch.float32):
        assert "verified" in cs.ggn(model, criterion, [(x, target)], dtype=dtype).derivatives().summary
