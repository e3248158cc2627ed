"""The paper's ImageNet problem: torchvision's ResNet-18 with 11,689,512 parameters."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument, MissingExtra
from curvscope.operators.objective import BATCH_NORMS
from curvscope.problems._base import Defaults, Pair, Problem, Split, as_split, seeded, shuffled_batches
from curvscope.problems._digits import lowest_of_each_class
from curvscope.problems._image_folder import DecodedBatches, ImageTree

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SAMPLE = "imagenet-sample-224"
CLASSES, HELD_OUT = 1000, 50_000
CURVATURE_SAMPLES_PER_CLASS, CURVATURE_BATCH, EVALUATION_BATCH = 5, 150, 250


class ImagenetWithResnet18(Problem):
    """ImageNet-1k, torchvision's ResNet-18, D = 11,689,512, plain SGD, no augmentation.

    The network is needed without data too (:meth:`model`); everything else asks for ``data``. Images are decoded when they are
    used; those for curvature once, and kept as bytes (0.75 GB for 5,000).

    Args:
        data: directory with ``train/<wnid>/*`` and ``val/<wnid>/*`` (as torchvision's ImageNet unpacks them; either will do for
            what needs only it), or with ``imagenet-sample-224`` or ``imagenet-sample-224.tar``: a thousand test images that
            are 224 x 224 already, one a class. They are enough for a Hessian, not for training or accuracy.
    """

    name = "imagenet_resnet18"
    description = "torchvision's ResNet-18 (D = 11,689,512) on ImageNet-1k without augmentation, SGD"
    criterion = nn.CrossEntropyLoss()
    defaults = Defaults(seed=12345, batch_size=150, learning_rate=0.1, steps=(0, 2000, 8000), num_outer=1500, num_inner=3000)
    source = "Fernandez et al., TMLR 2025 (arXiv 2504.14701), section 6.2"
    initial_top = "a93878309fb8565df7d1a3d525f7eed7a9fe04fc39175811eb284b3589e9c6ef"
    definition: Mapping[str, str] = {
        "network": "torchvision.models.resnet18(weights=None), 1000 classes",
        "initialisation": "seed 12345; torchvision's own: Kaiming normal convolutions (fan out), BatchNorm 1 and 0, PyTorch's "
        "linear layer",
        "training": "SGD 0.1, batches of 150, no momentum, decay, schedule or augmentation; resize 256, centre crop 224; "
        "50,000 validation images left out (torch.randperm, seed 12345), epoch e reshuffled with seed 12345 + 4933327 + e",
        "BatchNorm": "batch statistics in training, running statistics in the Hessian; the paper restored parameters without "
        "buffers, so its Hessians have the initial statistics (mean 0, variance 1): see initial_statistics",
        "dropout": "none",
        "curvature": "mean cross-entropy on 5,000 validation images, the 5 lowest indices of each class, in batches of 150",
    }

    def __init__(self, data: str | os.PathLike[str] | None = None) -> None:
        self._data = data

    def model(self, seed: int | None = None) -> nn.Module:
        """Torchvision's network with its own initialisation; in training mode.

        Raises:
            MissingExtra: torchvision is not installed.
        """
        try:
            from torchvision.models import resnet18
        except ImportError as error:
            raise MissingExtra("imagenet_resnet18 needs torchvision: pip install 'curvscope[vision]'") from error
        with seeded(self.defaults.seed if seed is None else seed):
            network: nn.Module = resnet18(weights=None)
        return network

    @property
    def steps_per_epoch(self) -> int | None:
        """Whole batches of the training images without the validation ones; None without a ``train`` folder."""
        tree = self._trees["train"]
        return None if tree is None else (len(tree.labels) - HELD_OUT) // self.defaults.batch_size

    def train_batches(self, seed: int | None = None, start: int = 0) -> Iterator[Pair]:
        """Epoch after epoch, reshuffled; 50,000 validation images are left out.

        Raises:
            InvalidArgument: there is no ``train`` folder.
        """
        seed = self.defaults.seed if seed is None else seed
        tree = self._tree("train")
        members = torch.randperm(len(tree.labels), generator=torch.Generator().manual_seed(seed), device="cpu")[HELD_OUT:]
        for chosen in shuffled_batches(members, self.defaults.batch_size, seed, start):
            yield normalized(tree.read(chosen, cropped)), tree.labels[chosen]

    def curvature_batches(self, split: Split = "test") -> Sequence[Pair]:
        """Up to 5 of the lowest indices of each class, in batches of 150; decoded once, and kept."""
        tree = self._tree(split)
        chosen = lowest_of_each_class(tree.labels, CURVATURE_SAMPLES_PER_CLASS)
        return self._batches(tree, chosen, CURVATURE_BATCH, keep=True)

    def evaluation_batches(self, split: Split = "test") -> Sequence[Pair]:
        """All images of the split in batches of 250, decoded again whenever they are gone over."""
        tree = self._tree(split)
        return self._batches(tree, torch.arange(len(tree.labels), device="cpu"), EVALUATION_BATCH, keep=False)

    def _batches(self, tree: ImageTree, index: Tensor, size: int, *, keep: bool) -> DecodedBatches:
        decode = whole if tree.origin.name.startswith(SAMPLE) else cropped
        return DecodedBatches(tree, index, size, decode=decode, normalized=normalized, keep=keep)

    def _tree(self, split: str) -> ImageTree:
        as_split(split)
        tree = self._trees[split]
        if tree is None:
            raise InvalidArgument(
                f"{self._data} has no {split} images: expected {'train' if split == 'train' else 'val'}/<wnid>/<image>"
                + (f'; {SAMPLE} is only for split="test" (--split test)' if split == "train" else f", {SAMPLE} or {SAMPLE}.tar")
            )
        return tree

    @cached_property
    def _trees(self) -> dict[str, ImageTree | None]:
        if self._data is None:
            raise InvalidArgument(
                "imagenet_resnet18 needs ImageNet: pass data=DIR (--data DIR) with train/<wnid> and val/<wnid>, or with "
                f"{SAMPLE}.tar for curvature on a thousand images"
            )
        folder = Path(self._data)
        if not folder.is_dir():
            raise InvalidArgument(
                f"data={str(self._data)!r} is not a directory: pass the one that holds train and val, or {SAMPLE}"
            )
        places = {"train": ["train"], "test": ["val", SAMPLE, f"{SAMPLE}.tar"]}
        found = {split: [folder / name for name in names if (folder / name).exists()] for split, names in places.items()}
        trees = {split: ImageTree.open(there[0]) if there else None for split, there in found.items()}
        for tree in trees.values():
            if tree is not None and len(tree.classes) != CLASSES:
                raise InvalidArgument(f"{tree.origin} has {len(tree.classes)} classes, ImageNet-1k has {CLASSES}")
        return trees


def cropped(image: Any) -> Tensor:
    """uint8 (3, 224, 224): the shorter side resized to 256 (bilinear, antialiased), then the centre, of a PIL image."""
    from torchvision.transforms import CenterCrop, Resize

    return whole(CenterCrop(224)(Resize(256)(image)))


def whole(image: Any) -> Tensor:
    """uint8 (3, H, W) of a PIL image as it is."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def normalized(images: Tensor) -> Tensor:
    """float32: pixels in [0, 1], minus the mean and over the deviation of each colour."""
    mean, deviation = (torch.tensor(x, device="cpu").view(1, 3, 1, 1) for x in (MEAN, DEVIATION))
    return (images.float().div(255) - mean) / deviation


def initial_statistics(model: nn.Module) -> nn.Module:
    """Put the running statistics of all BatchNorm layers back to mean 0 and variance 1, in place, and return the model.

    This is what restoring parameters without buffers into a new network does, and how the published ImageNet Hessians were
    taken: with it they can be repeated as they are; without it they are those of the trained network.

    >>> model = nn.BatchNorm1d(2)
    >>> _ = model(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    >>> initial_statistics(model).running_mean.tolist()
    [0.0, 0.0]
    """
    for module in model.modules():
        if isinstance(module, BATCH_NORMS):
            module.reset_running_stats()
    return model
