"""What a problem is: a network and data with a pinned definition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, ClassVar, Literal, cast, get_args

import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument

Split = Literal["train", "test"]
"""Which samples of a problem are meant."""
EPOCH_SEED_OFFSET = 4933327
"""Added, with the epoch, to a seed for the order of the batches: the paper's."""
Pair = tuple[Any, Tensor]
"""Inputs, as the network takes them (a tensor, or tensors by name), and labels."""


@dataclass(frozen=True)
class Defaults:
    """Default settings for training and measuring a problem.

    ``threads`` is for training: float32 sums depend on the number of threads, and a pinned one makes a run the same bits on
    every machine with the same processor; None leaves it.

    >>> import curvscope as cs
    >>> cs.problems.get("mnist16").defaults.num_outer
    355
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
        definition: all that is pinned, in words.
        initial_top: digest of the places of the ``defaults.num_outer`` largest initial parameters, see :func:`top_digest`;
            empty where nothing is pinned.

    >>> import curvscope as cs
    >>> problem = cs.problems.get("mnist16")
    >>> sum(p.numel() for p in problem.model().parameters()), problem.criterion
    (7030, CrossEntropyLoss())
    """

    name: str
    description: str
    criterion: nn.Module
    defaults: Defaults
    source: str
    definition: Mapping[str, str] = {}
    initial_top: ClassVar[str] = ""

    @abstractmethod
    def model(self, seed: int | None = None) -> nn.Module:
        """The network as initialised; the global random state is not touched."""

    @abstractmethod
    def train_batches(self, seed: int | None = None, start: int = 0) -> Iterator[Pair]:
        """Endless mini-batches (x, y) in the order in which training sees them, from that of step ``start`` on."""

    @property
    def steps_per_epoch(self) -> int | None:
        """Number of updates in which training sees every sample once; None where batches are drawn anew each step."""
        return None

    @abstractmethod
    def curvature_batches(self, split: Split = "train") -> Sequence[Pair]:
        """The fixed samples on which curvature is measured, in batches."""

    @abstractmethod
    def evaluation_batches(self, split: Split = "test") -> Sequence[Pair]:
        """All samples of a split, for loss and accuracy."""


def shuffled_batches(members: Tensor, size: int, seed: int, start: int = 0) -> Iterator[Tensor]:
    """Endless whole batches of ``members``, reshuffled each epoch, from that of step ``start`` on (the paper's order).

    >>> batches = shuffled_batches(torch.arange(5), 2, seed=0)
    >>> [len(next(batches)) for _ in range(3)]
    [2, 2, 2]
    """
    if len(members) < size:
        raise InvalidArgument(f"{len(members)} training samples are no batch of {size}: pass the full data set")
    per_epoch = len(members) // size
    epoch, skipped = divmod(start, per_epoch)
    while True:
        shuffle = torch.Generator().manual_seed(seed + EPOCH_SEED_OFFSET + epoch)
        order = members[torch.randperm(len(members), generator=shuffle, device="cpu")]
        yield from order[: per_epoch * size].split(size)[skipped:]
        epoch, skipped = epoch + 1, 0


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, draw networks from a seed, on the CPU and in float32 whatever PyTorch's defaults are; as pinned.

    The global random state and the defaults are as before afterwards.

    >>> with seeded(0):
    ...     first = torch.rand(2)
    >>> with torch.device("meta"), seeded(0):
    ...     print(torch.equal(torch.rand(2), first))
    True
    """
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_default_dtype(dtype)


def top_digest(index: Tensor) -> str:
    """Hexadecimal digest of a set of places, in any order: what pins initial parameters across versions and machines.

    >>> top_digest(torch.tensor([3, 1])) == top_digest(torch.tensor([1, 3]))
    True
    """
    return sha256(",".join(str(i) for i in index.sort().values.tolist()).encode()).hexdigest()


def as_split(split: str) -> Split:
    """Return a name, as of an option or a setting, as that of a split.

    Raises:
        InvalidArgument: it is neither "train" nor "test".

    >>> as_split("test")
    'test'
    """
    if split not in get_args(Split):
        raise InvalidArgument(f"split={split!r}: choose 'train' or 'test'")
    return cast("Split", split)
