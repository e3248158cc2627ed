"""The contract of a strategy: how the curvature of one mini-batch becomes a fast map on groups of vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor

from curvscope.operators.objective import Batch
from curvscope.operators.products._maps import BatchMap, Pieces


class Footprint(NamedTuple):
    """Memory of one mini-batch's map in bytes: while it is built, for as long as it is kept, and on top while it is applied."""

    building: int
    kept: int
    applying: int


class Linearized(ABC):
    """The map of one mini-batch.

    Attributes:
        width: how many vectors it takes at a time, at most.
        held_bytes: memory that it keeps between calls (0: unknown, or not worth keeping).
    """

    width: int
    held_bytes: int

    @abstractmethod
    def __call__(self, tangents: Tensor) -> Pieces:
        """(c, D) tangents, c <= width, to one (c, *shape) tensor a parameter; None for zeros."""


class Strategy(ABC):
    """One way to compute products.

    Args:
        batch_map: what to compute.
    """

    name: str

    def __init__(self, batch_map: BatchMap) -> None:
        self.map = batch_map
        self.refused_batches = False

    @abstractmethod
    def linearize(self, batch: Batch, number: int, width: int) -> Linearized:
        """The map of (micro-)batch ``number`` for groups of ``width`` vectors, built once and used for all of a block."""

    @abstractmethod
    def footprint(self, batch: Batch, number: int, width: int) -> Footprint:
        """Memory and time of :meth:`linearize` and of an application; finding out costs one linearisation."""
