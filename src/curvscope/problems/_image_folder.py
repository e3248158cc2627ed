"""Folders of images by class, as torchvision's ImageFolder reads them, or the same in a tar file; decoded when used."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, overload

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, MissingExtra
from curvscope.problems._base import Pair

SUFFIXES = (".jpeg", ".jpg", ".png", ".ppm", ".bmp", ".webp")
Decode = Callable[[Any], Tensor]
"""A PIL image to uint8 (3, H, W)."""


@dataclass(frozen=True)
class ImageTree:
    """Images by class: sorted classes are the labels, and images are ordered by class and name, as in ImageFolder.

    Attributes:
        origin: the folder or the tar file.
        classes: sorted.
        names: of the images, below ``origin``.
        labels: int64 (N,).
    """

    origin: Path
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: Tensor

    @classmethod
    def open(cls, origin: Path) -> ImageTree:
        """List a folder ``<class>/<image>`` or a tar file ``<folder>/<class>/<image>``; nothing is decoded.

        Raises:
            InvalidArgument: there are no images.
        """
        if origin.is_dir():
            found = [path.relative_to(origin).as_posix() for path in origin.glob("*/*")]
        else:
            with tarfile.open(origin) as archive:
                found = [member.name for member in archive if member.isfile()]
        names = [name for name in found if name.lower().endswith(SUFFIXES)]
        names.sort(key=lambda name: PurePosixPath(name).parts[-2:])
        if not names:
            raise InvalidArgument(f"no images in {origin}: expected <class>/<image>")
        owners = [PurePosixPath(name).parts[-2] for name in names]
        classes = tuple(sorted(set(owners)))
        label = {name: number for number, name in enumerate(classes)}
        return cls(origin, classes, tuple(names), torch.tensor([label[owner] for owner in owners], device="cpu"))

    def read(self, index: Tensor, decode: Decode) -> Tensor:
        """uint8 (n, 3, H, W): the images at these places, decoded by as many threads as there are cores.

        Raises:
            MissingExtra: Pillow is not installed.
        """
        try:
            from PIL import Image
        except ImportError as error:
            raise MissingExtra("images need Pillow: pip install 'curvscope[vision]'") from error

        def one(content: bytes) -> Tensor:
            return decode(Image.open(io.BytesIO(content)).convert("RGB"))

        chosen = [self.names[i] for i in index.tolist()]
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return torch.stack(list(threads.map(one, self._contents(chosen))))

    def _contents(self, names: Sequence[str]) -> list[bytes]:
        if self.origin.is_dir():
            return [(self.origin / name).read_bytes() for name in names]
        with tarfile.open(self.origin) as archive:
            return [_content(archive, name) for name in names]


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    stream = archive.extractfile(name)
    if stream is None:  # a folder or a special file of this name
        raise InvalidArgument(f"{archive.name!s}: {name} is no file: make the archive again")
    return stream.read()


class DecodedBatches(Sequence[Pair]):
    """Batches of images of a tree, a sequence: each is normalised when it is asked for.

    Args:
        tree: the images.
        index: (N,) which of them.
        size: of a batch.
        decode: see :data:`Decode`.
        normalized: uint8 images to what the network takes.
        keep: whether decoded images are kept, a byte a pixel (0.15 MB an image of 224 x 224): curvature goes over the same
            samples thousands of times, and decoding them each time is what took most of the paper's time.
    """

    def __init__(
        self,
        tree: ImageTree,
        index: Tensor,
        size: int,
        *,
        decode: Decode,
        normalized: Callable[[Tensor], Tensor],
        keep: bool,
    ) -> None:
        self._tree, self._parts = tree, index.split(size)
        self._decode, self._normalized = decode, normalized
        self._kept: dict[int, Tensor] | None = {} if keep else None

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._parts)

    @overload
    def __getitem__(self, number: int) -> Pair: ...

    @overload
    def __getitem__(self, number: slice) -> list[Pair]: ...

    def __getitem__(self, number: int | slice) -> Pair | list[Pair]:
        """(images, labels) of one batch; of several for a slice."""
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(f"batch {number} of {len(self)}")
        number %= len(self)
        part = self._parts[number]
        images = self._kept.get(number) if self._kept is not None else None
        if images is None:
            images = self._tree.read(part, self._decode)
            if self._kept is not None:
                self._kept[number] = images
        return self._normalized(images), self._tree.labels[part]
