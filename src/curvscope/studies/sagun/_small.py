"""What the studies after Sagun et al. share: digits, Gaussian blobs, small fully connected networks, gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from curvscope.errors import InvalidArgument, MissingExtra
from curvscope.operators import CurvatureOperator, hessian
from curvscope.problems import Split, get, lowest_of_each_class

Pair = tuple[Tensor, Tensor]


def mlp(widths: Sequence[int], activation: type[nn.Module], seed: int) -> nn.Module:
    """A fully connected float64 network with PyTorch's initialisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [nn.Linear(wide, narrow), activation()]
        return nn.Sequential(*layers[:-1]).double()


def digits(data: Path | None, *, side: int = 16, split: Split = "train") -> Pair:
    """Digits as float64 vectors, and their labels: the curvature samples of 16 x 16 MNIST, or 100 of each at 28 x 28.

    Raises:
        InvalidArgument: 28 x 28 without ``data``, or nothing there. MissingExtra: torchvision is not installed.
    """
    if side == 16:
        images, labels = get("mnist16", data=data).curvature_batches(split)[0]
        return images.double().flatten(1), labels
    if data is None:
        raise InvalidArgument("28 x 28 digits need MNIST: pass --data DIR with MNIST/raw in it, or --preset quick")
    try:
        from torchvision.datasets import MNIST
    except ImportError as error:
        raise MissingExtra("--data needs torchvision: pip install 'curvscope[vision]'") from error
    try:
        whole = MNIST(root=str(data), train=split == "train", download=False)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise InvalidArgument(f"no MNIST in {data}: expected MNIST/raw with the four idx files") from error
    chosen = lowest_of_each_class(whole.targets.long(), 100)
    return whole.data[chosen].double().flatten(1) / 255, whole.targets.long()[chosen]


def colour_images(data: Path | None, split: Split) -> Pair:
    """The first 100 images of each class of CIFAR-10, normalised, float64 (1000, 3, 32, 32), and their labels.

    Raises:
        InvalidArgument: there is no CIFAR-10 in ``data``.
    """
    batches = get("cifar10_3c3d", data=data).evaluation_batches(split)
    x, y = (torch.cat(part) for part in zip(*batches, strict=True))
    chosen = lowest_of_each_class(y, 100)
    return x[chosen].double(), y[chosen]


def convolutional(width: int, seed: int) -> nn.Module:
    """Two convolutions with ReLU and max-pooling, and two dense layers: 32 x 32 colour images to 10 classes, float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Conv2d(3, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(400, width), nn.ReLU(), nn.Linear(width, 10)).double()


def blobs(centers: Tensor, deviation: float, each: int, seed: int) -> Pair:
    """``each`` Gaussian samples about every center, (x, y), float64."""
    random = torch.Generator().manual_seed(seed)
    y = torch.arange(len(centers), device="cpu").repeat_interleave(each)
    x = centers[y] + deviation * torch.randn(len(y), centers.shape[1], generator=random, dtype=torch.float64, device="cpu")
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
        chosen = slice(None) if batch is None else torch.randint(len(y), (batch,), generator=random, device="cpu")
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


def descend_together(models: Sequence[nn.Module], data: Pair, *, rate: float, steps: int, until: float) -> list[int]:
    """:func:`descend` on all samples for networks of one shape, all at once: what the calls of many small ones cost is shared.

    Args:
        models: trained in place, each until its own gradient is small.
        data: see :func:`descend`, also for the following.
        rate: learning rate.
        steps: most updates.
        until: norm of a gradient that is small.

    Returns:
        The number of updates of each.
    """
    x, y = data
    going, updates = torch.arange(len(models), device="cpu"), [steps] * len(models)
    parameters, _ = stack_module_state(list(models))

    def loss(own: dict[str, Tensor]) -> Tensor:
        """Of one network."""
        return nn.functional.cross_entropy(functional_call(models[0], own, (x,)), y)

    gradients_of = vmap(grad(loss))
    parameters = {name: tensor.detach() for name, tensor in parameters.items()}
    for step in range(steps):
        gradients = gradients_of(parameters)
        if step % 10 == 0:
            norms = torch.stack([part.flatten(1).square().sum(dim=1) for part in gradients.values()]).sum(dim=0).sqrt()
            ended = norms <= until
            _put_back(models, going[ended].tolist(), {name: tensor[ended] for name, tensor in parameters.items()})
            for i in going[ended].tolist():
                updates[i] = step
            going, left = going[~ended], ~ended
            parameters, gradients = ({name: t[left] for name, t in part.items()} for part in (parameters, gradients))
            if not len(going):
                return updates
        parameters = {name: tensor - rate * gradients[name] for name, tensor in parameters.items()}
    _put_back(models, going.tolist(), parameters)
    return updates


def _put_back(models: Sequence[nn.Module], places: Sequence[int], stacked: dict[str, Tensor]) -> None:
    for row, i in enumerate(places):
        models[i].load_state_dict({name: tensor[row] for name, tensor in stacked.items()})


def hessian_of(model: nn.Module, data: Pair) -> CurvatureOperator:
    """The Hessian of the mean cross-entropy; small, so the strategy is given rather than tried."""
    return hessian(model, nn.CrossEntropyLoss(), [data], strategy="split_vmap:16")
