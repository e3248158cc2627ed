"""Whether mini-batches are weighted by what their losses average over: verified by cutting a batch, or asked for."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.operators.objective._batches import Batch, length, split, tensors_of


class Sizes:
    """Sizes of the batches seen so far.

    Attributes:
        first: lengths of the tensors of the first batch.
        uneven: whether another batch differs in the length of a tensor.
        samples: batches that can be cut, the first one and the last one of another size; fewer where there are none.
    """

    def __init__(self) -> None:
        self.first: tuple[int, ...] | None = None
        self.uneven = False
        self.samples: list[Batch] = []

    def add(self, batch: Batch) -> None:
        """Note a batch; at most two are held."""
        found = lengths(batch)
        self.first = found if self.first is None else self.first
        self.uneven |= found != self.first
        if found and found[0] > 1 and (not self.samples or found != lengths(self.samples[0])):
            self.samples = [*self.samples[:1], batch]


def lengths(batch: Batch) -> tuple[int, ...]:
    """Lengths of the first axes of all tensors: batches that agree in these are of equal size.

    >>> import torch
    >>> lengths({"nodes": torch.ones(5, 3), "edges": torch.ones(2, 9), "scale": torch.tensor(1.0)})
    (5, 2)
    """
    return tuple(int(tensor.shape[0]) for tensor in tensors_of(batch) if tensor.ndim)


def is_mean_of_pieces(
    loss: Callable[[Batch], Tensor], terms: Callable[[Batch], float], batch: Batch, most: int | None, limit: float
) -> bool | None:
    """Return whether the loss of a batch is the mean of its halves' losses, weighted by their terms; None: undecided.

    Args:
        loss: of a batch.
        terms: what it is weighted by.
        batch: at least two samples.
        most: samples at a time, where batches are cut anyway; else one is cut here only if all of its tensors can be.
        limit: relative difference that rounding explains.

    Cost: two evaluations of the loss of the batch.
    """
    if most is None and len(set(lengths(batch))) > 1:
        return None  # a graph, say: a part of its nodes is no batch
    try:
        whole = next(split(batch, max(2, most or length(batch))))
        halves = [half for half in split(whole, -(-length(whole) // 2)) if terms(half)]
        expected = float(loss(whole).detach()) * terms(whole)
        found = [float(loss(half).detach()) * terms(half) for half in halves]
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError):
        return None
    return abs(sum(found) - expected) <= limit * max(abs(expected), *map(abs, found), 1e-300)


def verified(sizes: Sizes, check: Callable[[Batch], bool | None]) -> bool | None:
    """Return whether the batches that tell all agree with their weights; None: none of them tells."""
    told = [verdict for batch in sizes.samples if (verdict := check(batch)) is not None]
    return all(told) if told else None


def ask_for_weights(sizes: Sizes, verdict: bool | None) -> None:
    """Raise InvalidArgument where the weights of batches of unequal size are disproved, or cannot be verified.

    Batches of equal size have equal weights: a loss that compares its samples with one another, such as a contrastive one, is
    no mean of its halves' losses, and its mean over batches is well defined all the same.
    """
    if not sizes.uneven or verdict:
        return
    if verdict is None:
        found = ", ".join(map(str, sizes.first or ()))
        reason = f"cannot be verified by cutting one (lengths of the tensors of the first batch: {found})"
    else:
        reason = "is no number of samples or labels: the loss of one is not the mean of its halves' losses, so weighted"
    raise InvalidArgument(
        f"the batches differ in size, and what their losses average over {reason}: pass weight=lambda batch: number of loss "
        "terms (with class weights, or without ignored labels: what the mean divides by), nn.CrossEntropyLoss(...) and the "
        "like as modules, which are understood, or reduction='sum' for a loss that sums"
    )
