"""16 x 16 MNIST: the packaged part of it, or all of it through torchvision."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, MissingExtra

PACKAGED = "mnist16.npz"
SIDE = 16


@dataclass(frozen=True)
class Digits:
    """Images as they are stored, and labels.

    Attributes:
        train_images, test_images: uint8 (N, 16, 16).
        train_labels, test_labels: int64 (N,).
        complete: whether it is the full set of 60,000 + 10,000.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    complete: bool

    def split(self, split: str) -> tuple[Tensor, Tensor]:
        """(x, y) of a split: float32 (N, 1, 16, 16) in [0, 1], and int64 labels."""
        images, labels = (self.train_images, self.train_labels) if split == "train" else (self.test_images, self.test_labels)
        return images.unsqueeze(1).float().div(255), labels


def packaged() -> Digits:
    """10,000 training and 2,000 test images, 1,000 and 200 of each digit: the lowest indices of MNIST in its own order.

    Source: MNIST (LeCun, Cortes and Burges), CC BY-SA 3.0, resized as by :func:`full`; see ``problems/data/README.md``.
    """
    with (files("curvscope.problems") / "data" / PACKAGED).open("rb") as stream, np.load(stream) as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return Digits(
        tensors["train_images"],
        tensors["train_labels"].long(),
        tensors["test_images"],
        tensors["test_labels"].long(),
        complete=False,
    )


def full(root: str | os.PathLike[str]) -> Digits:
    """All of MNIST, read by torchvision from ``root/MNIST/raw`` and resized 28 x 28 to 16 x 16 (PIL bilinear, antialiased).

    Cost: about 10 seconds.

    Raises:
        MissingExtra: torchvision is not installed. InvalidArgument: the files are not there.
    """
    try:
        from torchvision.datasets import MNIST
        from torchvision.transforms import Resize
    except ImportError as error:
        raise MissingExtra("--data needs torchvision: pip install 'curvscope[vision]'") from error
    folder = Path(root)
    if not folder.is_dir():
        raise InvalidArgument(f"data={str(root)!r} is not a directory: pass the one that holds MNIST/raw")
    resize = Resize(SIDE)
    read = {}
    for name, train in (("train", True), ("test", False)):
        raw = folder / "MNIST" / "raw"
        try:
            data = MNIST(root=str(folder), train=train, download=False)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise InvalidArgument(
                f"no MNIST in {folder}: expected {raw} with the four idx files, whole and unpacked"
            ) from error
        if len(data.data) != len(data.targets):
            raise InvalidArgument(f"{raw}: {len(data.data)} images and {len(data.targets)} labels, one file is damaged")
        data.transform = lambda image: torch.from_numpy(np.array(resize(image)))
        read[name] = (torch.stack([image for image, _ in data]), data.targets.long())
    return Digits(*read["train"], *read["test"], complete=True)


def lowest_of_each_class(labels: Tensor, count: int) -> Tensor:
    """Sorted indices of the first ``count`` samples of each class: balanced, and the same for everybody.

    >>> lowest_of_each_class(torch.tensor([1, 0, 0, 1, 1]), 2).tolist()
    [0, 1, 2, 3]
    """
    chosen = [(labels == label).nonzero().flatten()[:count] for label in labels.unique()]
    return torch.cat(chosen).sort().values
