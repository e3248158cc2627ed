"""Embeddings whose padding row is fixed in forward mode too, and whose table is not written to.

PyTorch leaves the padding row out of the gradient, but its forward derivative lets the row's tangent through.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from curvscope.errors import NotDifferentiable


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """``functional.embedding`` with the padding row held fixed; NotImplemented where there is nothing to replace.

    ``max_norm`` was applied to the operator's own copy of the table when it was made, see :func:`within_norm`.
    """
    if scale_grad_by_freq:
        _refuse_scaling()
    if padding_idx is None and max_norm is None and not sparse:
        return NotImplemented
    found = functional.embedding(input, weight)
    if padding_idx is None:
        return found
    fixed = input == (padding_idx if padding_idx >= 0 else weight.shape[0] + padding_idx)
    return torch.where(fixed.unsqueeze(-1), found.detach(), found)


def raw_embedding(
    weight: Tensor, indices: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
) -> Any:
    """``torch.embedding``, where -1 stands for no padding row."""
    return embedding(
        indices, weight, padding_idx if padding_idx >= 0 else None, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse
    )


def embedding_bag(  # noqa: PLR0913 -- PyTorch's own signature
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """``functional.embedding_bag`` as rows that are looked up and pooled; the fused kernel has no second derivative."""
    if scale_grad_by_freq:
        _refuse_scaling()
    if weight.ndim == 2 and input.ndim == 2:
        bags = torch.arange(input.shape[0], device=input.device).repeat_interleave(input.shape[1])
        count, entries = input.shape[0], input.reshape(-1)
    else:
        assert offsets is not None, "PyTorch has checked the arguments"
        starts = offsets[:-1] if include_last_offset else offsets
        count, entries = starts.shape[0], input
        places = torch.arange(entries.shape[0], device=input.device)
        bags = torch.searchsorted(starts.contiguous(), places, right=True) - 1
    rows = functional.embedding(entries, weight)
    counted = torch.ones_like(entries, dtype=torch.bool) if padding_idx is None else entries != padding_idx % weight.shape[0]
    keep = counted.unsqueeze(-1)
    if mode == "max":
        return _largest(rows, bags, keep, count)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.reshape(-1, 1)
    zeros = rows.new_zeros(count, rows.shape[1])
    total = zeros.index_add(0, bags, torch.where(keep, rows, torch.zeros_like(rows)))
    if mode == "sum":
        return total
    sizes = torch.zeros(count, dtype=rows.dtype, device=rows.device).index_add(0, bags, counted.to(rows.dtype))
    return total / sizes.clamp(min=1).unsqueeze(-1)


def _largest(rows: Tensor, bags: Tensor, keep: Tensor, count: int) -> Tensor:
    """The largest entry of each bag and column, found without derivatives and then looked up."""
    with torch.no_grad():
        values = torch.where(keep, rows.detach(), torch.full_like(rows, float("-inf")))
        index = bags.unsqueeze(-1).expand_as(rows)
        largest = torch.full((count, rows.shape[1]), float("-inf"), dtype=rows.dtype, device=rows.device)
        largest = largest.scatter_reduce(0, index, values, "amax")
        places = torch.arange(rows.shape[0], device=rows.device).unsqueeze(-1).expand_as(rows)
        first = torch.where(values == largest.gather(0, index), places, rows.shape[0])
        where = torch.full_like(largest, rows.shape[0], dtype=torch.long).scatter_reduce(0, index, first, "amin")
    empty = where == rows.shape[0]
    picked = rows.gather(0, where.clamp(max=max(rows.shape[0] - 1, 0)))
    return torch.where(empty, torch.zeros_like(picked), picked)


def no_renorm(weight: Tensor, indices: Tensor, max_norm: float, norm_type: float) -> Tensor:
    """``torch.embedding_renorm_`` on an operator's table, which has been within the norm since it was made."""
    return weight


def within_norm(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> set[int]:
    """Bring the rows that a call of ``embedding`` or ``embedding_bag`` reads within its ``max_norm``, in place.

    PyTorch does so in every forward pass and takes the gradient at the rows as they are then.

    Returns:
        The address of the table, where there is a ``max_norm``.
    """
    norm = kwargs.get("max_norm", args[3] if len(args) > 3 else None)
    if norm is None:
        return set()
    input, weight = (*args, *(kwargs[name] for name in ("input", "weight") if name in kwargs))[:2]
    kind = kwargs.get("norm_type", args[4] if len(args) > 4 else 2.0)
    with torch.no_grad():
        torch.embedding_renorm_(weight.detach(), input.contiguous(), norm, kind)
    return {weight.untyped_storage().data_ptr()}


def _refuse_scaling() -> None:
    raise NotDifferentiable(
        "an embedding has scale_grad_by_freq=True: its gradients are rescaled and are not those of the loss, so that there is "
        "no Hessian: set module.scale_grad_by_freq = False to measure the loss itself"
    )
