"""A part of the data, sample by sample or batch by batch, as data of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from curvscope.errors import InvalidArgument
from curvscope.operators._layouts import is_plain
from curvscope.operators.objective._batches import Batch, length, plain, tensors_of

Unit = Literal["samples", "batches"]


@dataclass(frozen=True)
class Units:
    """What data consists of.

    Attributes:
        unit: "samples" where every batch can be cut into rows, else "batches".
        lengths: number of units in each batch.
        duplicates: units that are equal to an earlier one in every tensor.
    """

    unit: Unit
    lengths: tuple[int, ...]
    duplicates: int

    @property
    def count(self) -> int:
        """Number of units."""
        return sum(self.lengths)


def units_of(data: Iterable[Batch], *, by: Unit | None = None) -> Units:
    """Count samples or batches, and those that occur more than once. Cost: one pass over the data.

    Args:
        data: batches.
        by: what is counted; None: samples where every batch can be cut, else batches.

    Raises:
        InvalidArgument: samples are asked for, and a batch cannot be cut into them.

    >>> units_of([(torch.eye(2), torch.zeros(2)), (torch.eye(2)[:1], torch.zeros(1))])
    Units(unit='samples', lengths=(2, 1), duplicates=1)
    """
    lengths, seen, digests = [], 0, set()
    whole: set[bytes] = set()
    can_be_cut = True
    for number, batch in enumerate(data, start=1):
        seen = number
        tensors = tensors_of(batch)
        rows = _rows(tensors)
        if rows is None and by == "samples":
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
            raise InvalidArgument(
                f"batch {number} (tensors of shapes {shapes}) has no row for every sample: choose by='batches'"
            )
        can_be_cut = can_be_cut and rows is not None
        lengths.append(rows or 0)
        contents = [tensor.detach().cpu().contiguous() for tensor in tensors if is_plain(tensor)]
        whole.add(_digest(contents))
        if rows is not None and by != "batches":
            digests |= {_digest([tensor[row] for tensor in contents if tensor.ndim]) for row in range(rows)}
    if by == "batches" or not can_be_cut:
        return Units("batches", (1,) * seen, seen - len(whole))
    return Units("samples", tuple(lengths), sum(lengths) - len(digests))


def _rows(tensors: list[Tensor]) -> int | None:
    """The number of samples in a batch; None where its tensors do not all have a row for each."""
    counts = {int(tensor.shape[0]) for tensor in tensors if is_plain(tensor) and tensor.ndim}
    return counts.pop() if len(counts) == 1 and all(is_plain(tensor) for tensor in tensors) else None


def _digest(tensors: list[Tensor]) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return found.digest()


class Part:
    """Batches with some of the units of others: the same rows at every pass, joined to batches of about the same size.

    Args:
        data: batches, which come in the same order at every pass.
        units: what they consist of.
        members: booleans, (units.count,).

    >>> data = [(torch.arange(4.0), torch.arange(4.0)), (torch.arange(4.0, 6.0), torch.arange(4.0, 6.0))]
    >>> part = Part(data, units_of(data), torch.tensor([True, False, False, True, True, False]))
    >>> [x.tolist() for x, _ in part]
    [[0.0, 3.0, 4.0]]
    """

    def __init__(self, data: Iterable[Batch], units: Units, members: Tensor) -> None:
        self.data, self.units, self.members = data, units, members
        self.size = max(units.lengths)

    def __iter__(self) -> Iterator[Batch]:
        waiting: list[Batch] = []
        for piece in self._pieces():
            if self.units.unit == "batches":
                yield piece
                continue
            if waiting and sum(map(length, waiting)) + length(piece) > self.size:
                yield from joined(waiting)
                waiting = []
            waiting.append(piece)
        if waiting:
            yield from joined(waiting)

    def _pieces(self) -> Iterator[Batch]:
        start = 0
        for batch, count in zip(self.data, self.units.lengths, strict=True):
            chosen = self.members[start : start + count]
            start += count
            if not bool(chosen.any()):
                continue
            yield batch if bool(chosen.all()) else _taken(batch, chosen)


def _taken(batch: Batch, chosen: Tensor) -> Batch:
    """The chosen rows of a batch."""

    def take(tensor: Tensor) -> Tensor:
        """The rows of one tensor."""
        return tensor[chosen.to(tensor.device)] if tensor.ndim else tensor

    return tree_map_only(Tensor, take, plain(batch))


def joined(batches: list[Batch]) -> Iterator[Batch]:
    """The batches as one, where tensors fit together and everything else agrees; else as they are.

    >>> ones, zeros, longer = torch.ones(1, 2), torch.zeros(1, 2), torch.ones(1, 3)
    >>> [x.tolist() for x in joined([ones, zeros])], len(list(joined([ones, longer])))
    ([[[1.0, 1.0], [0.0, 0.0]]], 2)
    """
    flat = [tree_flatten(plain(batch)) for batch in batches]
    columns = list(zip(*(leaves for leaves, _ in flat), strict=False))
    if len(batches) == 1 or any(form != flat[0][1] for _, form in flat) or not all(map(_fit, columns)):
        yield from batches
        return
    leaves = [torch.cat(column) if _is_rows(column[0]) else column[0] for column in columns]
    yield tree_unflatten(leaves, flat[0][1])


def _is_rows(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.ndim > 0


def _fit(column: tuple[Any, ...]) -> bool:
    """Return whether leaves at one place can be joined, or are all the same."""
    first = column[0]
    if _is_rows(first):
        same = (first.shape[1:], first.dtype, first.device)
        return all(_is_rows(leaf) and (leaf.shape[1:], leaf.dtype, leaf.device) == same for leaf in column)
    if isinstance(first, Tensor):
        return all(isinstance(leaf, Tensor) and torch.equal(leaf, first) for leaf in column)
    return all(leaf is first or leaf == first for leaf in column)
