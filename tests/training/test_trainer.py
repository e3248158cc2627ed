"""With the real Hugging Face Trainer: what a tracker finds reaches every reporter, TensorBoard's files read back."""

import pytest
import torch
import transformers
from tensorboard.backend.event_processing import event_accumulator as events
from torch import nn

import curvscope as cs
from curvscope.training import trainer_callback

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore::UserWarning")]


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))

    def forward(self, x, labels=None):
        logits = self.net(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def samples():
    generator = torch.Generator().manual_seed(1)
    return [{"x": torch.randn(4, generator=generator), "labels": torch.tensor(i % 3)} for i in range(12)]


def tracker_of(model, **options):
    data = [(torch.stack([row["x"] for row in samples()]), torch.stack([row["labels"] for row in samples()]))]
    return cs.Tracker(model.net, nn.CrossEntropyLoss(), data, k=1, **options)


class Listens(transformers.TrainerCallback):
    """Another reporter, such as that of Weights & Biases."""

    def __init__(self):
        self.heard = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.heard.append((state.global_step, dict(logs)))


class StopsEarly(transformers.TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 3


def trained(tmp_path, tracker, model, *callbacks):
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        report_to=["tensorboard"],
        max_steps=4,
        per_device_train_batch_size=4,
        logging_steps=2,
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=samples(), callbacks=[*callbacks, trainer_callback(tracker)]
    )
    trainer.train()
    return trainer


def scalars(folder):
    """What TensorBoard would show: value by step, by name."""
    found = {}
    for file in folder.rglob("events.out.tfevents.*"):
        read = events.EventAccumulator(str(file))
        read.Reload()
        for name in read.Tags()["scalars"]:
            found.setdefault(name, {}).update({event.step: event.value for event in read.Scalars(name)})
    return found, len(list(folder.rglob("events.out.tfevents.*")))


def named(found, ending):
    return next(values for name, values in found.items() if name.endswith(ending))


def test_every_reporter_of_the_trainer_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    model, listener = Small(), Listens()
    tracker = tracker_of(model, every=2)
    trainer = trained(tmp_path / "out", tracker, model, listener)
    assert list(tracker.history) == [0, 2, 4]
    found, files = scalars(tmp_path / "board")
    assert files == 1, "nothing is written after the reporter closed its file"
    expected = {step: values["curvature/largest"] for step, values in tracker.history.items()}
    assert named(found, "curvature/largest") == pytest.approx(expected, rel=1e-6)
    assert list(named(found, "train/loss")) == [2, 4], "the Trainer's own numbers are written as before"
    heard = {step: logs["curvature/largest"] for step, logs in listener.heard if "curvature/largest" in logs}
    assert heard == expected
    kept = {row["step"]: row["curvature/largest"] for row in trainer.state.log_history if "curvature/largest" in row}
    assert kept == expected


def test_the_last_step_of_training_that_is_stopped_early_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    model = Small()
    tracker = tracker_of(model, every=3)
    trained(tmp_path / "out", tracker, model, StopsEarly())
    found, files = scalars(tmp_path / "board")
    assert (list(tracker.history), list(named(found, "curvature/largest")), files) == ([0, 3], [0, 3], 1)
