"""With the real Lightning: training steps that log, metrics, every logger told."""

import csv

import lightning.pytorch as L
import pytest
import torch
import torchmetrics
from torch import nn
from torch.utils.data import DataLoader

import curvscope as cs
from curvscope.errors import InvalidArgument, InvalidType
from curvscope.training import lightning_callback

pytestmark = [
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
    pytest.mark.filterwarnings("ignore::FutureWarning:lightning"),
]


class Logs(L.LightningModule):
    """Logs a loss and an accuracy in its training step."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))

    def training_step(self, batch, batch_idx):
        x, y = batch
        output = self.net(x)
        loss = nn.functional.cross_entropy(output, y)
        self.log("train_loss", loss, prog_bar=True)
        self.log_dict({"accuracy": (output.argmax(1) == y).float().mean()})
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Counts(Logs):
    """Counts in metrics, and returns a dictionary."""

    def __init__(self):
        super().__init__()
        self.accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=3)
        self.collection = torchmetrics.MetricCollection(
            [torchmetrics.Accuracy(task="multiclass", num_classes=3), torchmetrics.F1Score(task="multiclass", num_classes=3)]
        )

    def training_step(self, batch):
        x, y = batch
        output = self.net(x)
        self.accuracy(output, y)
        self.log("accuracy", self.accuracy)
        self.log_dict(self.collection(output, y))
        self.accuracy.update(output, y)
        return {"loss": nn.functional.cross_entropy(output, y)}


class MetricIsLoss(Logs):
    """Takes a metric for its loss."""

    def __init__(self):
        super().__init__()
        self.error = torchmetrics.MeanSquaredError()

    def training_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        loss = self.error(self.net(x), nn.functional.one_hot(y, 3).float())
        self.log("loss", loss)
        return loss


class ByHand(Logs):
    def training_step(self, batch, batch_idx):
        self.manual_backward(super().training_step(batch, batch_idx))


def batches():
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 4, generator=generator), torch.randint(3, (8,), generator=generator)) for _ in range(3)]


def squares(output, y):
    return nn.functional.mse_loss(output, nn.functional.one_hot(y, 3).float())


CASES = [(Logs, nn.CrossEntropyLoss()), (Counts, nn.CrossEntropyLoss()), (MetricIsLoss, squares)]


@pytest.mark.parametrize(("kind", "criterion"), CASES)
@pytest.mark.parametrize("matrix", [cs.hessian, cs.gradient_second_moment])
def test_a_training_step_is_a_loss_by_its_name(kind, criterion, matrix):
    module = kind()
    found = matrix(module, "training_step", batches()).to_dense()
    expected = matrix(module.net, criterion, batches()).to_dense()
    assert torch.allclose(found, expected, atol=1e-6)
    assert "log" not in vars(module)


@pytest.mark.parametrize(("kind", "criterion"), CASES)
def test_curvature_is_followed_within_fit_and_every_logger_is_told(kind, criterion, tmp_path):
    module, data = kind(), batches()
    expected = float(cs.eigsh(cs.hessian(module.net, criterion, data), 1, progress=False).eigenvalues[0])
    tracker = cs.Tracker(module, "training_step", data, k=1, every=2)
    loggers = [L.loggers.CSVLogger(tmp_path, name=name) for name in ("first", "second")]
    trainer = L.Trainer(
        max_steps=3,
        logger=loggers,
        callbacks=[lightning_callback(tracker)],
        accelerator="cpu",
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, DataLoader(data, batch_size=None))
    assert list(tracker.history) == [0, 2]
    assert tracker.history[0]["curvature/eigenvalue/1"] == pytest.approx(expected, rel=1e-3)
    for name in ("first", "second"):
        with next((tmp_path / name).rglob("metrics.csv")).open() as file:
            rows = [row for row in csv.DictReader(file) if row.get("curvature/eigenvalue/1")]
        assert [int(row["step"]) for row in rows] == [0, 2]
        assert float(rows[0]["curvature/eigenvalue/1"]) == pytest.approx(expected, rel=1e-3)


def test_metrics_count_as_before_after_a_measurement():
    module = Counts()
    module.accuracy.update(torch.eye(3), torch.tensor([0, 1, 0]))
    cs.eigsh(cs.hessian(module, "training_step", batches()), 1, progress=False)
    assert float(module.accuracy.compute()) == pytest.approx(2 / 3)
    module.accuracy.update(torch.eye(3), torch.arange(3))
    assert float(module.accuracy.compute()) == pytest.approx(5 / 6)


def test_steps_that_are_missing_or_give_no_loss_are_named():
    with pytest.raises(InvalidType, match=r"'trainin_step'.*the model has no such method"):
        cs.hessian(Logs(), "trainin_step", batches())
    with pytest.raises(InvalidType, match=r"loss is missing.*\(model, 'training_step', loader\)"):
        cs.hessian(Logs(), None, batches())
    with pytest.raises(InvalidArgument, match=r"validation_step returns no loss"):
        cs.hessian(Logs(), "validation_step", batches())


def test_another_training_step_is_another_matrix():
    class Doubled(Logs):
        def training_step(self, batch, batch_idx):
            return 2 * super().training_step(batch, batch_idx)

    first, second = (cs.hessian(kind(), "training_step", batches()) for kind in (Logs, Doubled))
    assert first.fingerprint != second.fingerprint


class AnyName(Logs):
    def training_step(self, batch, i):
        assert i == 0
        return super().training_step(batch, i)


class Gathered(Logs):
    def training_step(self, *args):
        batch, index = args
        return super().training_step(batch, index)


class Loaders(Logs):
    def validation_step(self, batch, number, loader_number):
        return super().training_step(batch, number + loader_number)

    def weighted(self, batch, weight):
        return weight * super().training_step(batch, 0)


@pytest.mark.parametrize(
    ("kind", "step"), [(AnyName, "training_step"), (Gathered, "training_step"), (Loaders, "validation_step")]
)
def test_indices_of_a_step_may_have_any_name(kind, step):
    torch.manual_seed(0)
    module = kind()
    found = cs.hessian(module, step, batches()).to_dense()
    assert torch.allclose(found, cs.hessian(module, lambda m, batch: Logs.training_step(m, batch, 0), batches()).to_dense())


def test_a_method_that_needs_more_than_the_batch_is_named():
    with pytest.raises(InvalidArgument, match=r"weighted needs weight beside the batch: pass a function loss\(model, batch\)"):
        cs.hessian(Loaders(), "weighted", batches())


def test_a_data_module_is_told_to_give_its_loader():
    with pytest.raises(InvalidType, match=r"data=.*: pass one of its loaders: .* train_dataloader"):
        cs.hessian(Logs(), "training_step", L.LightningDataModule.from_datasets([1]))
