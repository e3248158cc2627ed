"""Plain stochastic gradient descent: no momentum, no decay, no schedule."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager

import torch
from torch import nn

from curvscope.errors import InvalidArgument, NotFinite
from curvscope.operators.objective import move
from curvscope.problems import Problem, Split
from curvscope.system import Progress, stage, threads
from curvscope.training._recorder import Recorder


def train(
    problem: Problem,
    model: nn.Module,
    recorder: Recorder,
    *,
    seed: int | None = None,
    start: int = 0,
    progress: Progress = None,
) -> list[float]:
    """Train ``model`` in place up to the recorder's last step, on the device where it is.

    What dropout draws at a step depends on seed and step alone, and plain SGD has no state beside the parameters: from a
    recorded step, training continues as if it had not been interrupted.

    Args:
        problem: gives batches, criterion and learning rate.
        model: of the problem's kind.
        recorder: says which steps to keep.
        seed: of the order of the batches, of augmentation and dropout; default the problem's.
        start: the step whose parameters ``model`` has.
        progress: see :data:`.progress.Progress`.

    Returns:
        The batch loss before each update from ``start`` on, the one at the last recorded step included.

    Raises:
        NotFinite: training diverged; the message names the step.

    >>> import curvscope as cs
    >>> problem = cs.problems.get("mnist16")
    >>> model = problem.model()
    >>> losses = train(problem, model, cs.Recorder(model, [0, 2]))
    >>> len(losses)
    3
    """
    last = recorder.steps[-1]
    rate = problem.defaults.learning_rate
    if rate <= 0:
        raise InvalidArgument(f"learning_rate={rate}: choose a positive one")
    if not 0 <= start <= last:
        raise InvalidArgument(f"start={start}: choose 0 to the last recorded step, {last}")
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    device = next(model.parameters()).device
    drawn = problem.defaults.seed if seed is None else seed
    losses: list[float] = []
    with threads(problem.defaults.threads), _forked(device), stage("training", last + 1 - start, progress) as advance:
        for step, (x, y) in enumerate(problem.train_batches(seed, start), start=start):
            recorder.step(step)
            torch.manual_seed(drawn + step)
            x, y = move((x, y), device, next(model.parameters()).dtype)
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


def _forked(device: torch.device) -> AbstractContextManager[None]:
    """Inside, the global random state may be seeded; outside it stays as it was."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


@torch.no_grad()
def evaluate(problem: Problem, model: nn.Module, split: Split = "test") -> tuple[float, float]:
    """(mean loss, accuracy) over all samples of a split (for text, tokens), in evaluation mode; the modes are restored."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    total = loss = correct = 0.0
    first = next(model.parameters())
    for batch in problem.evaluation_batches(split):
        x, y = move(batch, first.device, first.dtype)
        output = model(x)
        loss += float(problem.criterion(output, y)) * y.numel()
        correct += float((output.argmax(dim=1) == y).sum())
        total += y.numel()
    for module, training in modes.items():
        module.training = training
    return loss / total, correct / total
