"""What a problem is: a network and data with a pinned definition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from curvscope.errors import InvalidArgument

SPLITS = ("train", "test")
EPOCH_SEED_OFFSET = 4933327
"""Added, with the epoch, to a seed for the order of the batches: the paper's."""
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Defaults:
    """How a problem is trained and measured unless asked otherwise.

    ``threads`` is for training: float32 sums depend on the number of threads, and a pinned one makes a run the same bits on
    every machine with the same processor; None leaves it.
    """

    seed: int
    batch_size: int
    learning_rate: float
    steps: tuple[int, ...]
    num_outer: int
    num_inner: int
    threads: int | None = None


class Problem(ABC):
    """A network, data and recipe that everybody can repeat.

    Attributes:
        name: as in ``problems.get(name)``.
        description: one line.
        criterion: the loss, a mean over samples.
        defaults: seed, batch size, learning rate, steps worth recording, sketch sizes.
        source: where the definition comes from.
    """

    name: str
    description: str
    criterion: nn.Module
    defaults: Defaults
    source: str

    @abstractmethod
    def model(self, seed: int | None = None) -> nn.Module:
        """The network as initialised; the global random state is not touched."""

    @abstractmethod
    def train_batches(self, seed: int | None = None) -> Iterator[Pair]:
        """Endless mini-batches (x, y) in the order in which training sees them."""

    @abstractmethod
    def curvature_batches(self, split: str = "train") -> list[Pair]:
        """The fixed samples on which curvature is measured, as a list of batches."""

    @abstractmethod
    def evaluation_batches(self, split: str = "test") -> list[Pair]:
        """All samples of a split, for loss and accuracy."""


def check_split(split: str) -> None:
    """Raise InvalidArgument unless ``split`` is "train" or "test"."""
    if split not in SPLITS:
        raise InvalidArgument(f"split={split!r}: choose 'train' or 'test'")
