"""Plain stochastic gradient descent: no momentum, no decay, no schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from curvscope.errors import InvalidArgument, NotFinite
from curvscope.execution import Progress, stage, threads
from curvscope.problems import Problem
from curvscope.training.recorder import Recorder


def train(
    problem: Problem, model: nn.Module, recorder: Recorder, *, seed: int | None = None, progress: Progress = None
) -> list[float]:
    """Train ``model`` in place up to the recorder's last step.

    Args:
        problem: gives batches, criterion and learning rate.
        model: of the problem's kind.
        recorder: says which steps to keep.
        seed: of the order of the batches; default the problem's.
        progress: see :data:`.progress.Progress`.

    Returns:
        The batch loss before each update, the one at the last recorded step included.

    Raises:
        NotFinite: training diverged; the message names the step.
    """
    last = recorder.steps[-1]
    rate = problem.defaults.learning_rate
    if rate <= 0:
        raise InvalidArgument(f"learning_rate={rate}: choose a positive one")
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    losses: list[float] = []
    with threads(problem.defaults.threads), stage("training", last + 1, progress) as advance:
        for step, (x, y) in enumerate(problem.train_batches(seed)):
            recorder.step(step)
            loss = problem.criterion(model(x), y)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise NotFinite(f"training diverged: the loss at step {step} is {losses[-1]}; lower the learning rate")
            advance(1, note=f"loss {losses[-1]:.4f}" if step % 20 == 0 else "")
            if step == last:
                break
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return losses


@torch.no_grad()
def evaluate(problem: Problem, model: nn.Module, split: str = "test") -> tuple[float, float]:
    """(mean loss, accuracy) over all samples of a split, in evaluation mode; the modes are restored."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    total = loss = correct = 0.0
    for x, y in problem.evaluation_batches(split):
        output = model(x)
        loss += float(problem.criterion(output, y)) * len(y)
        correct += float((output.argmax(dim=1) == y).sum())
        total += len(y)
    for module, training in modes.items():
        module.training = training
    return loss / total, correct / total
