"""Curvature beside the loss in TensorBoard, from a training loop of one's own: ``tensorboard --logdir runs`` shows it."""

import sys
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import curvscope as cs

torch.manual_seed(0)
x = torch.randn(256, 10)
y = (x[:, :3].sum(1) > 0).long()
batches = [(x[i : i + 64], y[i : i + 64]) for i in range(0, 256, 64)]
model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 2))
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs")
with SummaryWriter(folder) as writer:

    def log(found: dict[str, float], step: int) -> None:
        """All numbers of a check, under their names."""
        for name, value in found.items():
            writer.add_scalar(name, value, step)

    tracker = cs.Tracker(cs.Objective(model, criterion, batches), k=3, every=20, log=log)
    for step in range(101):
        tracker.step(step)  # before the update
        inputs, labels = batches[step % len(batches)]
        optimizer.zero_grad()
        loss = criterion(model(inputs), labels)
        loss.backward()
        optimizer.step()
        writer.add_scalar("loss", loss.item(), step)

written = EventAccumulator(str(folder)).Reload()
print("written:", ", ".join(sorted(written.Tags()["scalars"])))
for event in written.Scalars("curvature/largest"):
    print(f"step {event.step:3}: largest eigenvalue {event.value:.3f}")
