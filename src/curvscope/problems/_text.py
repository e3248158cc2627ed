"""Text as training data: one long row of tokens, cut into windows; each token of a window is a loss term."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.problems._base import EPOCH_SEED_OFFSET, Pair, as_split

PACKAGED = "sonnets.txt"
LEFT_OUT = {"tests", "benchmarks"}
"""Folders whose files are no part of a text."""
TESTED = 0.1
"""The last part of a text is its test split."""


def read_text(data: str | os.PathLike[str] | None) -> str:
    """The packaged text (12 kB of Shakespeare's sonnets, public domain), a UTF-8 file, or all ``*.txt`` of a folder in order.

    Raises:
        InvalidArgument: there is no text.
    """
    if data is None:
        return (files("curvscope.problems") / "data" / PACKAGED).read_text(encoding="ascii")
    place = Path(data)
    found = sorted(place.glob("*.txt")) if place.is_dir() else [place] if place.is_file() else []
    try:
        text = "\n".join(file.read_text(encoding="utf-8") for file in found)
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{place} is not UTF-8 text ({error}): pass a text file, or a folder with *.txt") from error
    if not text.strip():
        raise InvalidArgument(f"no text in {place}: pass a UTF-8 file, or a folder with *.txt")
    return text


def read_sources(package: str) -> bytes:
    """The Python files of an installed package in the order of their paths, without its tests and benchmarks.

    The package is not imported.

    Raises:
        InvalidArgument: it is not installed.
    """
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise InvalidArgument(f"the text is the sources of {package}, which is not installed: pass data=, a UTF-8 text file")
    place = Path(found.submodule_search_locations[0])
    names = sorted(file.relative_to(place).as_posix() for file in place.rglob("*.py"))
    return b"".join((place / name).read_bytes() for name in names if not LEFT_OUT & set(name.split("/")))


@dataclass(frozen=True)
class Windows:
    """Windows of a text.

    Attributes:
        tokens: (N,) int64, or uint8.
        length: tokens that are predicted in each window.
    """

    tokens: Tensor
    length: int

    def __post_init__(self) -> None:
        if len(self.part("test")) < self.length + 1:
            needed = round((self.length + 1) / TESTED)
            raise InvalidArgument(f"the text has {len(self.tokens)} tokens, at least {needed} are needed: pass a longer one")

    def part(self, split: str) -> Tensor:
        """The tokens of a split: the first nine tenths, or the rest."""
        as_split(split)
        edge = round(len(self.tokens) * (1 - TESTED))
        return self.tokens[:edge] if split == "train" else self.tokens[edge:]

    def at(self, split: str, starts: Tensor) -> Pair:
        """(tokens, the token after each): (n, length) both."""
        rows = self.part(split)[starts[:, None] + torch.arange(self.length + 1, device="cpu")].long()
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    def even(self, split: str, count: int | None = None) -> Pair:
        """Windows that do not overlap, from the first token on; ``count`` of them, evenly, or all."""
        starts = torch.arange(0, len(self.part(split)) - self.length, self.length, device="cpu")
        if count is not None and count < len(starts):
            starts = starts[torch.arange(count, device="cpu") * len(starts) // count]
        return self.at(split, starts)

    def random(self, count: int, seed: int, start: int) -> Iterator[Pair]:
        """Endless batches of windows anywhere in the training part; that of a step depends on seed and step alone."""
        places = len(self.part("train")) - self.length
        step = start
        while True:
            generator = torch.Generator().manual_seed(seed + EPOCH_SEED_OFFSET + step)
            yield self.at("train", torch.randint(places, (count,), generator=generator, device="cpu"))
            step += 1
