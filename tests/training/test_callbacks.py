"""Recording from other loops, with the callbacks that those libraries would call, and from where training can go on."""

import random
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType, MissingExtra, RunNotFound
from curvscope.training import lightning_callback, trainer_callback


class FakeLightningTrainer:
    """Calls the hooks in Lightning's order, ``accumulate`` batches to an update."""

    is_global_zero = True

    def __init__(self, callback, accumulate=1):
        self.callback, self.accumulate, self.global_step = callback, accumulate, 0

    def fit(self, model, updates):
        for i in range(updates * self.accumulate):
            self.callback.on_train_batch_start(self, model, batch=None, batch_idx=i)
            if (i + 1) % self.accumulate == 0:
                with torch.no_grad():
                    model.weight += 1
                self.global_step += 1
        self.callback.on_train_end(self, model)


@pytest.fixture
def lightning(monkeypatch):
    module = ModuleType("lightning.pytorch")
    module.Callback = type("Callback", (), {})
    monkeypatch.setitem(sys.modules, "lightning", ModuleType("lightning"))
    monkeypatch.setitem(sys.modules, "lightning.pytorch", module)
    return module


@pytest.mark.parametrize("accumulate", [1, 3])
def test_lightning_records_before_each_update(lightning, accumulate):
    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight)
    recorder = cs.Recorder(model, [0, 2, 5, 9])
    callback = lightning_callback(recorder)
    assert isinstance(callback, lightning.Callback)
    FakeLightningTrainer(callback, accumulate).fit(model, 5)
    assert recorder.recorded == [0, 2, 5]  # 5: after the last update
    for step in recorder.recorded:
        assert float(recorder.state(step)["weight"]) == step


def test_only_rank_zero_writes(lightning):
    model = nn.Linear(1, 1)
    recorder = cs.Recorder(model, [0])
    trainer = FakeLightningTrainer(lightning_callback(recorder))
    trainer.is_global_zero = False
    trainer.fit(model, 1)
    assert recorder.recorded == []


def test_a_missing_library_is_named(monkeypatch):
    recorder = cs.Recorder(nn.Linear(1, 1), [0])
    for name in ("lightning.pytorch", "lightning", "pytorch_lightning", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match="pip install lightning"):
        lightning_callback(recorder)
    with pytest.raises(MissingExtra, match=r"curvscope\[hf\]"):
        trainer_callback(recorder)


def test_trainer_callback_in_the_real_handler():
    transformers = pytest.importorskip("transformers")
    handler_of = pytest.importorskip("transformers.trainer_callback").CallbackHandler
    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight)
    recorder = cs.Recorder(model, range(0, 10, 2))
    handler = handler_of([trainer_callback(recorder)], model, None, None, None)
    state, control = transformers.TrainerState(), transformers.TrainerControl()
    for _ in range(4):
        handler.on_step_begin(None, state, control)
        with torch.no_grad():
            model.weight += 1
        state.global_step += 1
    handler.on_train_end(None, state, control)
    assert recorder.recorded == [0, 2, 4]
    assert [float(recorder.state(step)["weight"]) for step in (0, 2, 4)] == [0, 2, 4]
    state.is_world_process_zero, state.global_step = False, 6
    handler.on_step_begin(None, state, control)
    assert 6 not in recorder.recorded


def training(model, optimizer, recorder, start, stop):
    """A loop that draws from all three random generators, with momentum."""
    for i in range(start, stop):
        recorder.step(i)
        x = torch.randn(4, 3) + random.random() + np.random.rand()  # noqa: NPY002
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def made(path, **options):
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.Linear(3, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    return model, optimizer, cs.Recorder(model, [0, 3, 6], path=path, optimizer=optimizer, random_state=True, **options)


@pytest.mark.parametrize("on_disk", [True, False])
def test_training_goes_on_as_if_uninterrupted(tmp_path, on_disk):
    path = tmp_path / "steps" if on_disk else None
    model, optimizer, recorder = made(path)
    training(model, optimizer, recorder, 0, 9)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    assert recorder.resumable == [0, 3, 6]
    before = recorder.state(6)

    if on_disk:
        model, optimizer, recorder = made(path, resume=True)
    torch.rand(7), random.random(), np.random.rand()  # noqa: NPY002
    recorder.restore(3)
    training(model, optimizer, recorder, 3, 9)
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name])
    for name, value in recorder.state(6).items():
        assert torch.equal(value, before[name])


def test_what_was_not_asked_for_cannot_be_restored(tmp_path):
    recorder = cs.Recorder(nn.Linear(1, 1), [0], path=tmp_path)
    recorder.step(0)
    assert [file.name for file in tmp_path.iterdir()] == ["step_000000.safetensors"]
    with pytest.raises(RunNotFound, match="step 0 has no training state"):
        recorder.restore(0)
    with pytest.raises(InvalidArgument, match="resume=True needs the path"):
        cs.Recorder(nn.Linear(1, 1), [0], resume=True)


def test_resume_keeps_what_is_there(tmp_path):
    model = nn.Linear(1, 1)
    cs.Recorder(model, [0], path=tmp_path).step(0)
    first = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model.weight += 1
    again = cs.Recorder(model, [0, 1], path=tmp_path, resume=True)
    again.step(0)
    again.step(1)
    assert again.recorded == [0, 1]
    assert torch.equal(again.state(0)["weight"], first["weight"])
    assert not torch.equal(again.state(1)["weight"], first["weight"])


@pytest.mark.parametrize("make", [lightning_callback, trainer_callback])
def test_what_is_no_recorder_is_told(make):
    with pytest.raises(InvalidType, match=r"it is the tracker's, a callback takes curvscope.Tracker\(model"):
        make(k=2)
    with pytest.raises(InvalidType, match=r"recorder is of type int: pass curvscope.Tracker\(model"):
        make(3)
