"""``vmap`` of the four functions: a mapped axis becomes part of the batch, or more directions that share each tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

MASK = 3
"""Place of the mask among the arguments."""


def heads_batched(function: Any, size: int, in_dims: Sequence[Any], args: Sequence[Any], *, leading: tuple[int, ...]) -> Any:
    """Call a function with the mapped axis merged into the batch.

    Args:
        function: an autograd function whose tensors are (B, ...).
        size: of the mapped axis.
        in_dims: the mapped axis of each argument, or None.
        args: its arguments.
        leading: places of arguments that are (T, B, ...).

    Returns:
        Its results and their mapped axes.
    """
    batch = args[0].shape[0 if in_dims[0] is None else int(in_dims[0] == 0)]
    merged = []
    for place, (value, dim) in enumerate(zip(args, in_dims, strict=True)):
        if not isinstance(value, Tensor):
            merged.append(value)
        elif place == MASK:
            merged.append(_mask(value, dim, size, batch))
        else:
            axis = int(place in leading)
            moved = value.unsqueeze(axis) if dim is None else value.movedim(dim, axis)
            shape = [size if a == axis else n for a, n in enumerate(moved.shape)]
            merged.append(moved.expand(shape).flatten(axis, axis + 1))
    found = function.apply(*merged)
    axis = int(bool(leading))
    return tuple(piece.unflatten(axis, (size, batch)) for piece in found), (axis,) * len(found)


def directions_batched(
    function: Any, size: int, in_dims: Sequence[Any], args: Sequence[Any], *, leading: tuple[int, ...]
) -> Any:
    """Call a function with the mapped axis merged into the directions: arguments without them are not mapped.

    See :func:`heads_batched`. What is the same for all directions and mapped by none, a gradient, stays one.
    """
    counts = [args[place].shape[int(in_dims[place] == 0)] for place in leading]
    count = max(counts)
    merged = list(args)
    for place in leading:
        value, dim = args[place], in_dims[place]
        if dim is None and value.shape[0] == 1 and place == leading[0] and len(leading) > 3:
            continue
        moved = value[None] if dim is None else value.movedim(dim, 0)
        merged[place] = moved.expand(size, count, *moved.shape[2:]).flatten(0, 1)
    found = function.apply(*merged)
    return tuple(piece.unflatten(0, (size, count)) for piece in found), (0,) * len(found)


def _mask(mask: Tensor, dim: int | None, size: int, batch: int) -> Tensor:
    if dim is None and mask.shape[0] == 1:
        return mask
    moved = mask[None] if dim is None else mask.movedim(dim, 0)
    return moved.expand(size, batch, *moved.shape[2:]).flatten(0, 1)
