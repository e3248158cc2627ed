"""Losses on lines against evaluating the model there."""

from math import isnan

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType
from curvscope.training import LineProfile


def setting():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = torch.randn(12, 4, dtype=torch.float64), torch.arange(12) % 3
    return model, nn.CrossEntropyLoss(), [(x[:8], y[:8]), (x[8:], y[8:])]


def test_points_are_those_of_the_model_itself():
    model, loss, data = setting()
    first = {name: p.detach().clone() for name, p in model.named_parameters()}
    second = {name: torch.randn_like(p) for name, p in first.items()}
    line = cs.interpolate(cs.Objective(model, loss, data), first, second, points=4, span=(-1, 2))
    assert line.alpha.tolist() == [-1, 0, 1, 2]
    x, y = torch.cat([data[0][0], data[1][0]]), torch.cat([data[0][1], data[1][1]])
    for a, value, right in zip(line.alpha.tolist(), line.loss.tolist(), line.accuracy.tolist(), strict=True):
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_((1 - a) * first[name] + a * second[name])
            output = model(x)
        assert value == pytest.approx(loss(output, y).item())
        assert right == pytest.approx((output.argmax(1) == y).double().mean().item())
    assert len(line.plot(Figure().subplots()).get_lines()) == 1
    odd = cs.interpolate(cs.Objective(model, loss, data), first, second, points=2, span=(-0.5, 1.5))
    assert odd.alpha.tolist() == [-0.5, 0, 1, 1.5]


def test_barrier():
    alpha = torch.tensor([-1.0, 0.0, 0.25, 0.5, 1.0]).double()
    line = LineProfile(alpha, torch.tensor([9.0, 1.0, 4.0, 3.0, 3.0]).double())
    assert line.barrier == pytest.approx(4 - 1.5)
    assert isnan(LineProfile(alpha[1:], torch.tensor([1.0, torch.nan, 3.0, 3.0]).double()).barrier)  # was 0: no barrier
    with pytest.raises(InvalidArgument, match="a = 0 and a = 1"):
        _ = LineProfile(alpha[2:], line.loss[2:]).barrier


def test_along_an_eigenvector_the_quadratic_model_is_tangent():
    model, loss, data = setting()
    H = cs.hessian(model, loss, data, strategy="double_backward")
    top = cs.eigsh(H, 1, method="exact")
    line = cs.loss_along(H, top.eigenvectors.columns(0, 1)[:, 0], radius=0.02, points=5)
    given = cs.loss_along(H, top.vector(0)["0.weight"].new_ones(H.shape[0]), radius=0.02, points=5)
    assert torch.equal(cs.loss_along(H, top.vector(0), radius=0.02, points=5).loss, line.loss)
    for found in (line, given):  # what is left is of third order
        error = (found.loss - found.quadratic).abs()
        assert 6 < float(error[4] / error[3]) < 10
        assert 6 < float(error[0] / error[1]) < 10
    assert float(line.quadratic[4] + line.quadratic[0] - 2 * line.quadratic[2]) == pytest.approx(
        float(top.eigenvalues[0]) * 0.02**2
    )


def test_ill_requests():
    model, loss, data = setting()
    objective, H = cs.Objective(model, loss, data), cs.hessian(model, loss, data)
    here = dict(model.named_parameters())
    for action in (
        lambda: cs.interpolate(objective, here, torch.zeros(3)),
        lambda: cs.interpolate(objective, {}, here),
        lambda: cs.interpolate(objective, here, here, points=1),
        lambda: cs.interpolate(objective, here, here, span=(1, 0)),
        lambda: cs.loss_along(H, torch.zeros(H.shape[0])),
        lambda: cs.loss_along(H, torch.ones(H.shape[0]), points=4),
    ):
        with pytest.raises(InvalidArgument):
            action()
    with pytest.raises(InvalidType, match="operator is of type Objective: pass one of type Operator"):
        cs.loss_along(objective, torch.ones(H.shape[0]))


def test_ignored_samples_do_not_count_as_wrong():
    model, loss, data = setting()
    padded = [(x, torch.where(torch.arange(len(y)) < 2, -100, y)) for x, y in data]
    kept = [(x[2:], y[2:]) for x, y in data]
    ends = [{name: scale * p.detach() for name, p in model.named_parameters()} for scale in (1.0, 2.0)]
    found, expected = (cs.interpolate(cs.Objective(model, loss, batches), *ends, points=2) for batches in (padded, kept))
    assert found.accuracy.tolist() == expected.accuracy.tolist()
    assert found.loss.tolist() == pytest.approx(expected.loss.tolist())
