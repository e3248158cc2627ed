"""What the studies after Sagun et al. share: digits, Gaussian blobs, small fully connected networks, gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from curvscope.operators import CurvatureOperator, hessian
from curvscope.problems import get

Pair = tuple[Tensor, Tensor]


def mlp(widths: Sequence[int], activation: type[nn.Module], seed: int) -> nn.Module:
    """A fully connected float64 network with PyTorch's initialisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [nn.Linear(wide, narrow), activation()]
        return nn.Sequential(*layers[:-1]).double()


def digits(data: Path | None) -> Pair:
    """The curvature samples of 16 x 16 MNIST as float64 vectors, and their labels."""
    images, labels = get("mnist16", data=data).curvature_batches("train")[0]
    return images.double().flatten(1), labels


def blobs(centers: Tensor, deviation: float, each: int, seed: int) -> Pair:
    """``each`` Gaussian samples about every center, (x, y), float64."""
    random = torch.Generator().manual_seed(seed)
    y = torch.arange(len(centers)).repeat_interleave(each)
    x = centers[y] + deviation * torch.randn(len(y), centers.shape[1], generator=random, dtype=torch.float64)
    return x, y


def descend(
    model: nn.Module,
    data: Pair,
    *,
    rate: float,
    steps: int,
    batch: int | None = None,
    seed: int = 0,
    until: float = 0.0,
    before: Callable[[int], object] | None = None,
) -> int:
    """Plain gradient descent on the mean cross-entropy, on all samples or on random batches; the number of updates.

    Args:
        model: trained in place.
        data: (x, y).
        rate: learning rate.
        steps: most updates.
        batch: samples drawn for each update; None: all.
        seed: of the batches.
        until: end when the norm of the full gradient is at most this; looked at with ``batch=None`` only.
        before: called with the number of each update, and after the last one.
    """
    x, y = data
    criterion, random = nn.CrossEntropyLoss(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for step in range(steps):
        if before is not None:
            before(step)
        chosen = slice(None) if batch is None else torch.randint(len(y), (batch,), generator=random)
        optimizer.zero_grad()
        criterion(model(x[chosen]), y[chosen]).backward()
        if until and batch is None and step % 10 == 0:
            norm = torch.stack([p.grad.square().sum() for p in model.parameters() if p.grad is not None]).sum().sqrt()
            if norm <= until:
                return step
        optimizer.step()
    if before is not None:
        before(steps)
    return steps


def hessian_of(model: nn.Module, data: Pair) -> CurvatureOperator:
    """The Hessian of the mean cross-entropy; small, so the strategy is given rather than tried."""
    return hessian(model, nn.CrossEntropyLoss(), [data], strategy="split_vmap:16")
