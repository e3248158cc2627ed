"""Odd models, losses and data are refused by name, or give finite numbers."""

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidType, NotDifferentiable

from . import objects
from .findings import fallen
from .objects import CE, X, Y, net


@pytest.mark.filterwarnings("ignore")
def test_odd_objects_are_refused_or_right():
    assert fallen(objects.tried(whole=False)) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_odd_objects_are_refused_or_right_for_every_matrix():
    assert fallen(objects.tried(whole=True)) == []


class StopsGradients(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.inner, self.how = net(), how

    def forward(self, x):
        out = self.inner(x)
        return {"detach": out.detach, "data": lambda: out.data, "numpy": lambda: torch.from_numpy(out.detach().numpy())}[
            self.how
        ]()


LOST = {
    "a detached loss": (net, lambda o, y: CE(o, y).detach()),
    "a detached output": (net, lambda o, y: CE(o.detach(), y)),
    "an item": (net, lambda o, y: torch.tensor(CE(o, y).item())),
    "the targets alone": (net, lambda o, y: y.float().mean()),
    "a constant that requires gradients": (net, lambda o, y: torch.ones((), requires_grad=True) ** 2),
    "no_grad in the model": (lambda: objects.NoGradient(None), CE),
    "detach in the model": (lambda: StopsGradients("detach"), CE),
    "data in the model": (lambda: StopsGradients("data"), CE),
    "NumPy in the model": (lambda: StopsGradients("numpy"), CE),
}


@pytest.mark.parametrize("case", LOST)
@pytest.mark.parametrize("matrix", [cs.hessian, cs.ggn, cs.empirical_fisher])
def test_a_loss_that_lost_its_parameters_is_refused(case, matrix):
    model, loss = LOST[case]
    with pytest.raises(NotDifferentiable, match="the loss does not depend on the parameters"):
        matrix(model(), loss, [(X, Y), (X, Y)])


def test_a_loss_of_model_and_batch_that_lost_them_and_parameters_that_are_not_used():
    with pytest.raises(NotDifferentiable, match="does not depend on the parameters"):
        cs.hessian(net(), lambda model, batch: CE(model(batch[0]), batch[1]).detach(), [(X, Y)])
    model = nn.ModuleDict({"used": net(), "unused": nn.Linear(2, 2)})
    loss = lambda model, batch: CE(model["used"](batch[0]), batch[1])  # noqa: E731
    with pytest.raises(NotDifferentiable, match=r"unused\.weight, unused\.bias"):
        cs.hessian(model, loss, [(X, Y)], params="unused.*")
    assert cs.hessian(model, loss, [(X, Y)]).shape == (49, 49)


def test_data_that_cannot_be_iterated_and_a_class_for_a_loss_are_named():
    with pytest.raises(InvalidType, match="data=3: pass an iterable, such as a list"):
        cs.hessian(net(), CE, 3)
    with pytest.raises(InvalidType, match=r"CrossEntropyLoss.*expected a criterion"):
        cs.hessian(net(), nn.CrossEntropyLoss, [(X, Y)])
