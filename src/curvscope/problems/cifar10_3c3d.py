"""The paper's CIFAR-10 problem: DeepOBS' 3c3d network with 895,210 parameters."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument
from curvscope.problems.base import EPOCH_SEED_OFFSET, Defaults, Pair, Problem, check_split
from curvscope.problems.cifar10 import Images, load, normalized
from curvscope.problems.digits import lowest_of_each_class

HELD_OUT = 10_000
CURVATURE_SAMPLES_PER_CLASS = 50
CURVATURE_BATCH = 125


class PoolSame(nn.Module):
    """Max pooling 3 x 3 with stride 2 whose zero padding is TensorFlow's: on the right and at the bottom only."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) with even H and W to (N, C, H / 2, W / 2)."""
        return nn.functional.max_pool2d(nn.functional.pad(x, (0, 1, 0, 1)), 3, stride=2)


class Cifar10With3c3d(Problem):
    """CIFAR-10, three convolutions and three dense layers, D = 895,210, plain SGD, no augmentation.

    The network is needed without data too (:meth:`model`); everything else asks for ``data``.

    Args:
        data: directory with CIFAR-10, see :func:`.cifar10.load`. A tree of JPEG images gives nearly the paper's pixels, and
            another order of the training samples.
    """

    name = "cifar10_3c3d"
    description = "DeepOBS 3c3d network (D = 895,210) on CIFAR-10 without augmentation, SGD"
    criterion = nn.CrossEntropyLoss()
    defaults = Defaults(
        seed=12345, batch_size=128, learning_rate=0.022610510812765, steps=(0, 2000, 8000), num_outer=1000, num_inner=2000
    )
    source = "Fernandez et al., TMLR 2025 (arXiv 2504.14701), section 6.2; DeepOBS (Schneider et al., 2019)"

    def __init__(self, data: str | os.PathLike[str] | None = None) -> None:
        self._data = data

    @cached_property
    def images(self) -> Images:
        """The data set.

        Raises:
            InvalidArgument: the problem was made without ``data``; there is no packaged part.
        """
        if self._data is None:
            raise InvalidArgument(
                'cifar10_3c3d needs CIFAR-10: pass data=DIR (--data DIR) with "cifar-10-batches-py" or "cifar10-jpeg" in it'
            )
        return load(self._data)

    def model(self, seed: int | None = None) -> nn.Module:
        """Xavier weights (normal for convolutions, uniform for dense layers) and zero biases, drawn after PyTorch's own."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.defaults.seed if seed is None else seed)
            model = nn.Sequential(
                *(nn.Conv2d(3, 64, 5), nn.ReLU(), PoolSame()),
                *(nn.Conv2d(64, 96, 3), nn.ReLU(), PoolSame()),
                *(nn.Conv2d(96, 128, 3, padding=1), nn.ReLU(), PoolSame()),
                *(nn.Flatten(), nn.Linear(1152, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)),
            )
            for module in model:
                if isinstance(module, nn.Conv2d | nn.Linear):
                    nn.init.zeros_(module.bias)
                    draw = nn.init.xavier_normal_ if isinstance(module, nn.Conv2d) else nn.init.xavier_uniform_
                    draw(module.weight)
        return model

    def train_batches(self, seed: int | None = None) -> Iterator[Pair]:
        """Epoch after epoch, reshuffled; 10,000 validation images are left out."""
        seed = self.defaults.seed if seed is None else seed
        images, labels = self.images.raw("train")
        members = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[HELD_OUT:]
        size, epoch = self.defaults.batch_size, 0
        while True:
            shuffle = torch.Generator().manual_seed(seed + EPOCH_SEED_OFFSET + epoch)
            order = members[torch.randperm(len(members), generator=shuffle)]
            for chosen in order[: len(order) // size * size].split(size):
                yield normalized(images[chosen]), labels[chosen]
            epoch += 1

    def curvature_batches(self, split: str = "train") -> list[Pair]:
        """500 samples in four batches: the 50 lowest indices of each class."""
        check_split(split)
        images, labels = self.images.raw(split)
        chosen = lowest_of_each_class(labels, CURVATURE_SAMPLES_PER_CLASS)
        return [(normalized(images[part]), labels[part]) for part in chosen.split(CURVATURE_BATCH)]

    def evaluation_batches(self, split: str = "test") -> list[Pair]:
        """All images of the split in batches of 1,000."""
        check_split(split)
        images, labels = self.images.raw(split)
        return [(normalized(x), y) for x, y in zip(images.split(1000), labels.split(1000), strict=True)]
