"""Batch normalisation of networks in training mode: which statistics are used is said, and a tracker follows training."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian

import curvscope as cs

CE = nn.CrossEntropyLoss()
SAID = "curvature is measured with the running statistics"


def net(norm=nn.BatchNorm1d, **options):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), norm(3, **options), nn.Tanh(), nn.Linear(3, 3)).double()


def batches():
    generator = torch.Generator().manual_seed(1)
    x = 5 * torch.randn(2, 8, 4, generator=generator, dtype=torch.float64) + 3
    return [(part, torch.arange(8) % 3) for part in x]


def dense(model, data):
    """Of the mean over the batches, in the mode that the model is in."""
    own = {name: p.detach() for name, p in model.named_parameters()}
    sizes = [p.numel() for p in own.values()]
    buffers = {name: b.clone() for name, b in model.named_buffers()}

    def loss(flat):
        values = {name: part.reshape(own[name].shape) for name, part in zip(own, flat.split(sizes), strict=True)}
        fresh = {name: b.clone() for name, b in buffers.items()}
        return sum(CE(functional_call(model, (values, fresh), (x,)), y) for x, y in data) / len(data)

    return hessian(loss)(torch.cat([p.flatten() for p in own.values()]))


def test_a_network_in_training_mode_is_named_once_and_both_choices_are_silent(caplog):
    model, data = net(), batches()
    H = cs.hessian(model, CE, data)
    cs.ggn(model, CE, data)
    assert caplog.text.count(SAID) == 1
    assert "batchnorm='batch'" in caplog.text
    assert "batchnorm='eval'" in caplog.text
    assert torch.allclose(H.to_dense(), dense(model.eval(), data), atol=1e-8)
    caplog.clear()
    for silent in ("eval", "batch"):
        cs.hessian(net(), CE, data, batchnorm=silent)
    cs.hessian(net().eval(), CE, data)
    assert SAID not in caplog.text


@pytest.mark.parametrize(
    "model",
    [
        lambda: net(track_running_stats=False),
        lambda: net(nn.LayerNorm),
        lambda: nn.Sequential(*(m.eval() if isinstance(m, nn.BatchNorm1d) else m for m in net())),
    ],
)
def test_networks_whose_training_uses_nothing_else_are_silent(model, caplog):
    cs.hessian(model(), CE, batches())
    assert SAID not in caplog.text


@pytest.mark.parametrize("form", ["model", "objective"])
def test_a_tracker_follows_the_mode_of_training(form, caplog):
    model, data = net(), batches()
    given = (model, CE, data) if form == "model" else (cs.Objective(model, CE, data),)
    tracker = cs.Tracker(*given, k=1, every=1)
    for step in range(2):
        found = tracker.step(step)["curvature/eigenvalue/1"]
        truth = torch.linalg.eigvalsh(dense(model, data))
        assert found == pytest.approx(float(truth[truth.abs().argmax()]), rel=1e-3)
        with torch.no_grad():
            model[0].weight.mul_(1.1)
        model(data[0][0])  # moves the running statistics, as training does
    assert SAID not in caplog.text


def test_a_tracker_of_a_trained_network_and_an_explicit_choice_use_running_statistics():
    data = batches()
    for model, options in ((net().eval(), {}), (net(), {"batchnorm": "eval"})):
        found = cs.Tracker(model, CE, data, k=1, every=1, **options).step(0)["curvature/eigenvalue/1"]
        truth = torch.linalg.eigvalsh(dense(model.eval(), data))
        assert found == pytest.approx(float(truth[truth.abs().argmax()]), rel=1e-3)


def test_running_statistics_that_move_do_not_make_a_tracker_trace_again():
    model, data = net(), batches()
    objective = cs.Objective(model, CE, data, batchnorm="batch")
    model(data[0][0])
    assert objective.move() is True
    trained = cs.Objective(model, CE, data, batchnorm="eval")
    model(data[0][0])
    assert trained.move() is False
