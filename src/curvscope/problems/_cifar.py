"""CIFAR-10 and CIFAR-100 from what people have of them: torchvision's files, or a tree of images, unpacked or in a tar file."""

from __future__ import annotations

import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, MissingExtra

CLASSES10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FINE_LABELS = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest
fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit
raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower
sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman
worm
"""
CLASSES100 = tuple(FINE_LABELS.split())


@dataclass(frozen=True)
class Cifar:
    """One of the two data sets.

    Attributes:
        title: "CIFAR-10" or "CIFAR-100".
        classes: names by label, sorted (for CIFAR-100 the fine labels).
        files: torchvision's folder.
        tree: our name for a tree of images.
        mean, deviation: of each colour, as the paper normalises.
    """

    title: str
    classes: tuple[str, ...]
    files: str
    tree: str
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    def normalized(self, images: Tensor) -> Tensor:
        """float32 (N, 3, 32, 32): pixels in [0, 1], minus the mean and over the deviation of each colour (the paper's)."""
        mean, deviation = (torch.tensor(x, device="cpu").view(1, 3, 1, 1) for x in (self.mean, self.deviation))
        return (images.float().div(255) - mean) / deviation


CIFAR10 = Cifar(
    "CIFAR-10",
    CLASSES10,
    "cifar-10-batches-py",
    "cifar10-jpeg",
    (0.49139968, 0.48215841, 0.44653091),
    (0.24703223, 0.24348513, 0.26158784),
)
CIFAR100 = Cifar(
    "CIFAR-100",
    CLASSES100,
    "cifar-100-python",
    "cifar100-jpeg",
    (0.50707516, 0.48654887, 0.44091784),
    (0.26733429, 0.25643846, 0.27615047),
)


@dataclass(frozen=True)
class Images:
    """Images as they are stored, and labels.

    Attributes:
        train_images, test_images: uint8 (N, 3, 32, 32).
        train_labels, test_labels: int64 (N,).
        origin: torchvision's folder (the data set itself, in its own order) or "images" (sorted by class and file name).
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    origin: str

    def raw(self, split: str) -> tuple[Tensor, Tensor]:
        """Stored images and labels of a split."""
        return (self.train_images, self.train_labels) if split == "train" else (self.test_images, self.test_labels)


def load(root: str | os.PathLike[str], data: Cifar) -> Images:
    """The data set below ``root``, from the first of these that is there (with CIFAR-10's names).

    - ``cifar-10-batches-py``, torchvision's unpacked download (``cifar-100-python``);
    - ``cifar10-jpeg/{train,test}/<class>/*``, images of any format that Pillow reads;
    - ``cifar10-jpeg.tar.gz``, the same tree in a tar file.

    Trees of images hold no order across classes, so training sees another order than with the data set itself; inside a class
    file names keep it, so the samples for curvature are the same images.

    Cost: about 12 seconds for the tar file, 180 MB.

    Raises:
        MissingExtra: torchvision is not installed. InvalidArgument: none of the three is there, it is damaged, or a tree
            is something else.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise InvalidArgument(f"data={str(root)!r} is not a directory: pass the one that holds {data.files} or {data.tree}")
    for name in (data.files, data.tree, f"{data.tree}.tar.gz", f"{data.tree}.tar"):
        if (folder / name).exists():
            try:
                return _read(folder / name, data)
            except (RuntimeError, EOFError, tarfile.TarError, zlib.error, OSError) as error:  # torchvision's, and Pillow's
                raise InvalidArgument(
                    f"{folder / name} cannot be read, is it whole? ({type(error).__name__}: {error}): download it again"
                ) from error
    raise InvalidArgument(
        f"no {data.title} in {folder}: expected {data.files} (torchvision's), {data.tree}/train/<class>/*.jpg or "
        f"{data.tree}.tar.gz"
    )


def _read(place: Path, data: Cifar) -> Images:
    if place.name == data.files:
        return _batches(place.parent, data)
    return _sorted_tree(_files(place) if place.is_dir() else _members(place), place, data)


def _batches(folder: Path, data: Cifar) -> Images:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise MissingExtra(f"{data.title} needs torchvision: pip install 'curvscope[vision]'") from error
    read = datasets.CIFAR10 if data is CIFAR10 else datasets.CIFAR100
    found = {}
    for name, train in (("train", True), ("test", False)):
        stored = read(root=str(folder), train=train, download=False)
        images = torch.from_numpy(stored.data).permute(0, 3, 1, 2).contiguous()
        found[name] = (images, torch.tensor(stored.targets, device="cpu"))
    return Images(*found["train"], *found["test"], origin=data.files)


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


def _sorted_tree(files: Iterator[tuple[str, bytes]], origin: Path, data: Cifar) -> Images:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra("trees of images need Pillow: pip install 'curvscope[vision]'") from error
    found: dict[str, list[tuple[str, str, np.ndarray]]] = {"train": [], "test": []}
    for name, content in files:
        split, label, file = PurePosixPath(name).parts if name.count("/") == 2 else ("", "", "")
        if split not in found or label not in data.classes:
            raise InvalidArgument(f"{origin}: {name} is not <train or test>/<class>/<image> with the classes of {data.title}")
        found[split].append((label, file, np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))))
    tensors = {}
    for split, rows in found.items():
        if {label for label, _, _ in rows} != set(data.classes) or {image.shape for _, _, image in rows} != {(32, 32, 3)}:
            raise InvalidArgument(f"{origin}: expected 32 x 32 images of all classes in {split}, found {len(rows)} images")
        rows.sort(key=lambda row: row[:2])
        images = torch.from_numpy(np.stack([image for _, _, image in rows])).permute(0, 3, 1, 2).contiguous()
        tensors[split] = (images, torch.tensor([data.classes.index(label) for label, _, _ in rows], device="cpu"))
    return Images(*tensors["train"], *tensors["test"], origin="images")
