"""CIFAR-10 from what people have of it: torchvision's files, or a tree of images, unpacked or in a tar file."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, MissingExtra

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN = (0.49139968, 0.48215841, 0.44653091)
DEVIATION = (0.24703223, 0.24348513, 0.26158784)
TREE = "cifar10-jpeg"


@dataclass(frozen=True)
class Images:
    """Images as they are stored, and labels.

    Attributes:
        train_images, test_images: uint8 (N, 3, 32, 32).
        train_labels, test_labels: int64 (N,).
        origin: "cifar-10-batches-py" (the data set itself, in its own order) or "images" (sorted by class and file name).
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    origin: str

    def raw(self, split: str) -> tuple[Tensor, Tensor]:
        """Stored images and labels of a split."""
        return (self.train_images, self.train_labels) if split == "train" else (self.test_images, self.test_labels)


def normalized(images: Tensor) -> Tensor:
    """float32 (N, 3, 32, 32): pixels in [0, 1], minus the mean and over the deviation of each colour (the paper's)."""
    mean, deviation = (torch.tensor(x).view(1, 3, 1, 1) for x in (MEAN, DEVIATION))
    return (images.float().div(255) - mean) / deviation


def load(root: str | os.PathLike[str]) -> Images:
    """CIFAR-10 below ``root``, from the first of these that is there.

    - ``cifar-10-batches-py``, torchvision's unpacked download;
    - ``cifar10-jpeg/{train,test}/<class>/*``, images of any format that Pillow reads;
    - ``cifar10-jpeg.tar.gz``, the same tree in a tar file.

    Trees of images hold no order across classes, so training sees another order than with the data set itself; inside a class
    file names keep it, so the samples for curvature are the same images.

    Cost: about 12 seconds for the tar file, 180 MB.

    Raises:
        MissingExtra: torchvision is not installed. InvalidArgument: none of the three is there, or a tree is not CIFAR-10.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise InvalidArgument(f"data={str(root)!r} is not a directory: pass the one that holds cifar-10-batches-py or {TREE}")
    if (folder / "cifar-10-batches-py").is_dir():
        return _batches(folder)
    if (folder / TREE).is_dir():
        return _sorted_tree(_files(folder / TREE), folder / TREE)
    for name in (f"{TREE}.tar.gz", f"{TREE}.tar"):
        if (folder / name).is_file():
            return _sorted_tree(_members(folder / name), folder / name)
    raise InvalidArgument(
        f"no CIFAR-10 in {folder}: expected cifar-10-batches-py (torchvision's), {TREE}/train/<class>/*.jpg or {TREE}.tar.gz"
    )


def _batches(folder: Path) -> Images:
    try:
        from torchvision.datasets import CIFAR10
    except ImportError as error:
        raise MissingExtra("CIFAR-10 needs torchvision: pip install 'curvscope[vision]'") from error
    tensors = []
    for train in (True, False):
        data = CIFAR10(root=str(folder), train=train, download=False)
        tensors += [torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets)]
    return Images(*tensors, origin="cifar-10-batches-py")


def _files(tree: Path) -> Iterator[tuple[str, bytes]]:
    for path in tree.rglob("*"):
        if path.is_file():
            yield path.relative_to(tree).as_posix(), path.read_bytes()


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive) as stream:
        for member in stream:
            opened = stream.extractfile(member) if member.isfile() else None
            if opened is not None:
                yield str(PurePosixPath(*PurePosixPath(member.name).parts[1:])), opened.read()


def _sorted_tree(files: Iterator[tuple[str, bytes]], origin: Path) -> Images:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra("trees of images need Pillow: pip install 'curvscope[vision]'") from error
    found: dict[str, list[tuple[str, str, np.ndarray]]] = {"train": [], "test": []}
    for name, content in files:
        split, label, file = PurePosixPath(name).parts if name.count("/") == 2 else ("", "", "")
        if split not in found or label not in CLASSES:
            raise InvalidArgument(f"{origin}: {name} is not <train or test>/<class>/<image> with the classes of CIFAR-10")
        found[split].append((label, file, np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))))
    tensors = []
    for split, rows in found.items():
        if {label for label, _, _ in rows} != set(CLASSES) or {image.shape for _, _, image in rows} != {(32, 32, 3)}:
            raise InvalidArgument(f"{origin}: expected 32 x 32 images of all ten classes in {split}, found {len(rows)} images")
        rows.sort(key=lambda row: row[:2])
        images = torch.from_numpy(np.stack([image for _, _, image in rows])).permute(0, 3, 1, 2).contiguous()
        tensors += [images, torch.tensor([CLASSES.index(label) for label, _, _ in rows])]
    return Images(*tensors, origin="images")
