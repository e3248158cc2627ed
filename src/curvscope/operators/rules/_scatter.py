"""Products over groups of entries, whose forward derivatives are wrong in PyTorch (2.9 to 2.14 at least)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True, out: Tensor | None = None
) -> Any:
    """``scatter_reduce`` with ``"prod"`` as a product of rounds, one entry of each group a round.

    NotImplemented for other reductions, whose derivatives are right.
    """
    if reduce != "prod" or out is not None or input.ndim == 0 or not src.is_floating_point():
        return NotImplemented
    src = src[tuple(slice(length) for length in index.shape)]
    rank, rounds = _rank_in_group(index.movedim(dim, -1), input.movedim(dim, -1).shape[-1])
    rank = rank.movedim(-1, dim)
    touched = torch.zeros(input.shape, dtype=torch.bool, device=input.device).scatter(dim, index, True)
    result = input if include_self else torch.where(touched, torch.ones_like(input), input)
    for number in range(rounds):
        mine = rank == number
        zeros = torch.zeros_like(input)
        missed = 1 - zeros.scatter_add(dim, index, mine.to(input.dtype))
        # At most one entry of a group takes part: its sum is the factor itself.
        result = result * (missed + zeros.scatter_add(dim, index, torch.where(mine, src, torch.zeros_like(src))))
    return result


def scatter_reduce_(input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True) -> Any:
    """``scatter_reduce_``: the same, written to ``input``."""
    found = scatter_reduce(input.clone(), dim, index, src, reduce, include_self=include_self)
    return found if found is NotImplemented else input.copy_(found)


def index_reduce(
    input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True, out: Tensor | None = None
) -> Any:
    """``index_reduce`` with ``"prod"``, one index for a whole slice."""
    if reduce != "prod" or out is not None or input.ndim == 0:
        return NotImplemented
    shape = [1] * source.ndim
    shape[dim] = -1
    return scatter_reduce(input, dim, index.view(shape).expand_as(source), source, reduce, include_self=include_self)


def index_reduce_(input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True) -> Any:
    """``index_reduce_``: the same, written to ``input``."""
    found = index_reduce(input.clone(), dim, index, source, reduce, include_self=include_self)
    return found if found is NotImplemented else input.copy_(found)


def _rank_in_group(index: Tensor, groups: int) -> tuple[Tensor, int]:
    """The place of each entry among those of its row that have the same index, and the largest number of them."""
    if not index.numel():
        return torch.zeros_like(index), 0
    order = index.sort(dim=-1, stable=True)
    places = torch.arange(index.shape[-1], device=index.device).expand_as(index)
    begins = torch.ones_like(order.values, dtype=torch.bool)
    begins[..., 1:] = order.values[..., 1:] != order.values[..., :-1]
    starts = torch.where(begins, places, torch.zeros_like(places)).cummax(dim=-1).values
    rank = torch.empty_like(index).scatter(-1, order.indices, places - starts)
    return rank, int(rank.max()) + 1
