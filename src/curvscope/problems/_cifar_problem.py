"""What the problems on CIFAR share: how samples are split, ordered and normalised."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.problems._base import Pair, Problem, Split, as_split, shuffled_batches
from curvscope.problems._cifar import Cifar, Images, load
from curvscope.problems._digits import lowest_of_each_class

HELD_OUT = 10_000
"""Validation images that training leaves out."""


class CifarProblem(Problem):
    """A network on CIFAR. The network is needed without data too (``model``); everything else asks for ``data``.

    Args:
        data: directory with the data set, see :func:`.cifar.load`. A tree of JPEG images gives nearly the paper's pixels, and
            another order of the training samples.

    Attributes:
        cifar: which of the two.
        samples_per_class: for curvature.
        curvature_batch: how many of them in a batch.
    """

    cifar: ClassVar[Cifar]
    samples_per_class: ClassVar[int]
    curvature_batch: ClassVar[int]

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
                f'{self.name} needs {self.cifar.title}: pass data=DIR (--data DIR) with "{self.cifar.files}" or '
                f'"{self.cifar.tree}" in it'
            )
        return load(self._data, self.cifar)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of the training samples without the validation images."""
        return (len(self.images.raw("train")[1]) - HELD_OUT) // self.defaults.batch_size

    def train_batches(self, seed: int | None = None, start: int = 0) -> Iterator[Pair]:
        """Epoch after epoch, reshuffled; 10,000 validation images are left out."""
        seed = self.defaults.seed if seed is None else seed
        images, labels = self.images.raw("train")
        members = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed), device="cpu")[HELD_OUT:]
        for step, chosen in enumerate(shuffled_batches(members, self.defaults.batch_size, seed, start), start=start):
            yield self.cifar.normalized(self._augmented(images[chosen], seed, step)), labels[chosen]

    def _augmented(self, images: Tensor, seed: int, step: int) -> Tensor:
        """Return what training sees of stored images; the same for the same seed and step."""
        return images

    def curvature_batches(self, split: Split = "train") -> list[Pair]:
        """The lowest indices of each class, never augmented."""
        as_split(split)
        images, labels = self.images.raw(split)
        chosen = lowest_of_each_class(labels, self.samples_per_class)
        return [(self.cifar.normalized(images[part]), labels[part]) for part in chosen.split(self.curvature_batch)]

    def evaluation_batches(self, split: Split = "test") -> list[Pair]:
        """All images of the split in batches of 1,000."""
        as_split(split)
        images, labels = self.images.raw(split)
        return [(self.cifar.normalized(x), y) for x, y in zip(images.split(1000), labels.split(1000), strict=True)]
