"""The leading curvature while Lightning trains, in every logger of the Trainer; and the Hessian of the training step."""

import logging
import sys
import warnings
from pathlib import Path

import lightning
import matplotlib.pyplot as plt
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import curvscope as cs
from curvscope.training import lightning_callback

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")
folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
torch.manual_seed(0)


class Classifier(lightning.LightningModule):
    """Two classes of points by a small network."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Cross entropy of a batch."""
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain gradient descent."""
        return torch.optim.SGD(self.parameters(), lr=0.5)


x = torch.randn(512, 2)
y = (x[:, 0] * x[:, 1] > 0).long()
module = Classifier()
batches = DataLoader(TensorDataset(x, y), batch_size=128)
tracker = cs.Tracker(cs.Objective(module, "training_step", batches), k=2, every=10)
trainer = lightning.Trainer(
    max_epochs=30,
    logger=CSVLogger(folder / "logs"),
    callbacks=[lightning_callback(tracker)],
    accelerator="cpu",
    enable_progress_bar=False,
    enable_model_summary=False,
    enable_checkpointing=False,
    log_every_n_steps=10,
)
trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=128, shuffle=True))

steps = list(tracker.history)
largest = [found["curvature/largest"] for found in tracker.history.values()]
print(f"leading eigenvalue: {largest[0]:.2f} at step {steps[0]}, {largest[-1]:.2f} at step {steps[-1]}")
values, vectors = cs.eigsh(cs.hessian(module, "training_step", batches), k=2)
print("after training:", ", ".join(f"{value:.2f}" for value in values))

figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
axes.plot(steps, largest, "o-", label="leading eigenvalue")
axes.axhline(2 / 0.5, ls="--", color="0.5", label="2 / learning rate")
axes.set(xlabel="step", ylabel="curvature")
axes.legend()
figure.savefig(folder / "lightning_training.png", dpi=150)
