"""Outputs that are tuples or dictionaries of tensors, seen as one tensor with a row for each sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from curvscope.errors import InvalidArgument


class FlatOutputs:
    """Flattens the outputs of one network, and gives criteria the outputs in the form that the network returns.

    A single tensor stays as it is. Tensors that share the length N of their first axes become one (N, M) tensor, others a
    vector. What the parts are is remembered by the shape of that tensor.

    >>> outputs = FlatOutputs()
    >>> flat = outputs.flat({"a": torch.ones(2, 3), "b": torch.zeros(2), "name": "pair"})
    >>> flat.tolist()
    [[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0]]
    >>> outputs.criterion(lambda output, target: output["a"].sum() - target)(flat, 2.0).item()
    4.0
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], tuple[Any, ...]] = {}

    def flat(self, output: Any) -> Tensor:
        """Return what a network returns, as one tensor.

        Raises:
            InvalidArgument: there is no floating-point tensor in it, or one of another kind, or two forms cannot be told apart.
        """
        if isinstance(output, Tensor):
            return output
        leaves, structure = tree_flatten(output)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if not tensors or not all(tensor.is_floating_point() for tensor in tensors):
            kinds = sorted({str(tensor.dtype) for tensor in tensors}) or ["no tensor"]
            raise InvalidArgument(
                f"the model returns a {type(output).__name__} with {', '.join(kinds)}: this matrix needs outputs that are a "
                "tensor, or tuples and dictionaries of floating-point tensors: return no others from the module"
            )
        shapes = tuple(tuple(leaf.shape) if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        by_sample = len({tuple(tensor.shape[:1]) for tensor in tensors}) == 1 and tensors[0].ndim > 0
        flat = torch.cat([tensor.reshape(len(tensor), -1) if by_sample else tensor.reshape(-1) for tensor in tensors], dim=-1)
        form = (structure, shapes, [isinstance(leaf, Tensor) for leaf in leaves])
        known = self._known.setdefault(tuple(flat.shape), form)
        if known != form:
            raise InvalidArgument(
                f"the model returns outputs of two forms with the same number of entries {tuple(flat.shape)}: return one tensor"
            )
        return flat

    def check_samples(self, flat: Tensor) -> None:
        """Raise InvalidArgument where the parts of an output do not have a row for each sample."""
        if flat.ndim == 1 and tuple(flat.shape) in self._known:
            raise InvalidArgument(
                "the tensors that the model returns differ in the lengths of their first axes: a matrix of samples needs a row "
                "for each sample in all of them"
            )

    def criterion(self, criterion: Callable[[Any, Any], Tensor]) -> Callable[[Tensor, Any], Tensor]:
        """A criterion of the network's outputs as one of the tensor that :meth:`flat` made of them."""

        def of_flat(flat: Tensor, target: Any) -> Tensor:
            """The criterion of the outputs in their own form."""
            if tuple(flat.shape) not in self._known:
                return criterion(flat, target)
            structure, shapes, are_tensors = self._known[tuple(flat.shape)]
            sizes = [torch.Size(shape).numel() for shape, is_tensor in zip(shapes, are_tensors, strict=True) if is_tensor]
            widths = [size // len(flat) for size in sizes] if flat.ndim == 2 else sizes
            pieces = iter(flat.split(widths, dim=-1))
            leaves = [
                next(pieces).reshape(shape) if is_tensor else shape
                for shape, is_tensor in zip(shapes, are_tensors, strict=True)
            ]
            return criterion(tree_unflatten(leaves, structure), target)

        return of_flat
