"""Tensors of any layout, dense, sparse (COO, CSR and the like) or nested: their numbers, their rows, and comparing them."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor


def is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor is dense and not nested."""
    return tensor.layout == torch.strided and not tensor.is_nested


def parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """The dense tensors that hold the numbers of a tensor and their places.

    >>> [part.tolist() for part in parts(torch.eye(2).to_sparse())]
    [[[0, 1], [0, 1]], [1.0, 1.0]]
    """
    tensor = tensor.detach()
    if is_plain(tensor):
        return (tensor,)
    if tensor.is_nested:
        if tensor.layout == torch.strided:
            return tuple(tensor.unbind())
        offsets: Tensor = cast(Any, tensor).offsets()  # of jagged tensors alone
        return (tensor.values(), offsets)
    if tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce()
        return tensor.indices(), tensor.values()
    by_rows = tensor.layout in (torch.sparse_csr, torch.sparse_bsr)
    places = (tensor.crow_indices(), tensor.col_indices()) if by_rows else (tensor.ccol_indices(), tensor.row_indices())
    return *places, tensor.values()


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """The shape; of a nested tensor the number of components and the axes in which these agree.

    >>> shape_of(torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)], layout=torch.jagged))
    (2, 3)
    """
    if not tensor.is_nested:
        return tuple(tensor.shape)
    return (int(tensor.size(0)), *(int(length) for length in tensor.unbind()[0].shape[1:]))


def equal(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors have the same layout, shape and numbers, as ``torch.equal`` for dense ones."""
    if is_plain(first) and is_plain(second):
        return torch.equal(first, second)
    same = first.layout == second.layout and first.is_nested == second.is_nested and shape_of(first) == shape_of(second)
    if not same:
        return False
    pairs = list(zip(parts(first), parts(second), strict=True))
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


def rows(tensor: Tensor, start: int, stop: int) -> Tensor:
    """The rows from ``start`` to ``stop``, as ``tensor[start:stop]`` of a dense tensor.

    >>> rows(torch.eye(3).to_sparse(), 1, 3).to_dense().tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    if is_plain(tensor):
        return tensor[start:stop]
    if tensor.is_nested:
        chosen = list(tensor.unbind()[start:stop])
        return torch.nested.as_nested_tensor(chosen, layout=tensor.layout)
    stop = min(stop, int(tensor.shape[0]))
    if tensor.layout == torch.sparse_coo:
        return torch.narrow_copy(tensor.coalesce(), 0, start, stop - start)
    if tensor.layout == torch.sparse_csr and tensor.ndim == 2:
        bounds = tensor.crow_indices()[start : stop + 1]
        first, last = int(bounds[0]), int(bounds[-1])
        shape = (stop - start, tensor.shape[1])
        columns, values = tensor.col_indices()[first:last], tensor.values()[first:last]
        # The invariants are those of the tensor that was cut, which PyTorch would warn of otherwise.
        return torch.sparse_csr_tensor(bounds - first, columns, values, shape, check_invariants=True, device="cpu")
    return rows(tensor.to_sparse_coo(), start, stop).to_sparse(layout=tensor.layout)
