"""Plain SGD and the recorder."""

from itertools import islice

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import DamagedData, InvalidArgument, NotFinite, RunConflict, RunNotFound
from curvscope.training import evaluate, train


@pytest.fixture(scope="module")
def problem():
    return cs.problems.get("mnist16")


def test_sgd_equals_the_update_by_hand(problem):
    model, theirs = problem.model(), problem.model().double()
    recorder = cs.Recorder(model, [0, 2, 5])
    losses = train(problem, model, recorder)
    assert len(losses) == 6
    assert recorder.recorded == [0, 2, 5]
    by_hand = {}
    for step, (x, y) in enumerate(islice(problem.train_batches(), 6)):
        by_hand[step] = [p.detach().clone() for p in theirs.parameters()]
        loss = nn.functional.cross_entropy(theirs(x.double()), y)
        assert losses[step] == pytest.approx(float(loss.detach()), abs=1e-6)
        gradients = torch.autograd.grad(loss, list(theirs.parameters()))
        with torch.no_grad():
            for p, g in zip(theirs.parameters(), gradients, strict=True):
                p -= 0.3 * g
    for step in (0, 2, 5):
        for recorded, exact in zip(recorder.state(step).values(), by_hand[step], strict=True):
            torch.testing.assert_close(recorded.double(), exact, rtol=0, atol=1e-6)
    # the model is left at the last recorded step
    torch.testing.assert_close(dict(model.state_dict()), recorder.state(5))
    assert all(p.grad is None for p in model.parameters())


def test_evaluate_restores_modes(problem):
    model = problem.model()
    model[2].eval()
    loss, accuracy = evaluate(problem, model)
    assert 0 <= accuracy <= 1
    assert loss == pytest.approx(2.3, abs=0.2)
    assert model.training
    assert not model[2].training


def test_divergence_names_the_step(problem, monkeypatch):
    monkeypatch.setattr(type(problem), "criterion", lambda self, output, y: output.sum() * float("inf"))
    with pytest.raises(NotFinite, match="the loss at step 0 is"):
        train(problem, problem.model(), cs.Recorder(problem.model(), [3]))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = nn.Linear(2, 2)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(2)


def test_recorder_on_disk_keeps_buffers_and_tied_weights(tmp_path):
    model = Tied()
    recorder = cs.Recorder(model, [1, 3], path=tmp_path / "steps")
    for i in range(5):
        recorder.step(i)
        with torch.no_grad():
            model.first.weight += 1
            model.norm.running_mean += 1
    assert recorder.recorded == [1, 3]
    assert sorted(f.name for f in (tmp_path / "steps").iterdir()) == ["step_000001.safetensors", "step_000003.safetensors"]
    loaded = recorder.load(3, Tied())
    torch.testing.assert_close(loaded.norm.running_mean, torch.full((2,), 3.0))
    torch.testing.assert_close(loaded.first.weight, model.first.weight - 2)
    assert loaded.second.weight is loaded.first.weight
    with pytest.raises(RunNotFound, match=r"step 2 was not recorded; there are \[1, 3\]"):
        recorder.state(2)
    with pytest.raises(RunConflict, match="step_000001"):
        cs.Recorder(model, [0, 1], path=tmp_path / "steps")


@pytest.mark.parametrize("steps", [[], [-1, 3]])
def test_recorder_needs_steps(steps):
    with pytest.raises(InvalidArgument, match="choose at least one step"):
        cs.Recorder(nn.Linear(1, 1), steps)


def test_recorder_refuses_steps_that_would_never_come():
    with pytest.raises(InvalidArgument, match=r"step 0.5 is no whole number"):
        cs.Recorder(nn.Linear(1, 1), [0, 0.5])
    assert cs.Recorder(nn.Linear(1, 1), torch.arange(3)).steps == [0, 1, 2]


def test_another_optimizer_is_not_restored_without_a_word(tmp_path):
    model = nn.Linear(1, 1)
    cs.Recorder(model, [0], path=tmp_path, optimizer=torch.optim.Adam(model.parameters())).step(0)
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1
    other = cs.Recorder(model, [0], path=tmp_path, optimizer=torch.optim.SGD(model.parameters()), resume=True)
    with pytest.raises(InvalidArgument, match="is no SGD"):
        other.restore(0)
    assert torch.equal(model.weight, before + 1)
    again = torch.optim.Adam(model.parameters())
    torch.optim.lr_scheduler.StepLR(again, 1)
    cs.Recorder(model, [0], path=tmp_path, optimizer=again, resume=True).restore(0)
    assert torch.equal(model.weight, before)
    (tmp_path / "step_000000.state.pt").write_bytes(b"torn")
    with pytest.raises(DamagedData, match=r"state\.pt is damaged"):
        other.restore(0)
