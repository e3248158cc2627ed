"""Masks of parameters: given places, names, booleans, a pruned model, an N:M pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument
from curvscope.operators import ParameterFilter, matching
from curvscope.subspaces._given import BUFFER, as_mask
from curvscope.subspaces._ranking import Mask
from curvscope.subspaces._weights import Layers, Weights, flat, layout
from curvscope.system import as_numbers, checked


@checked
def from_indices(index: Tensor | Sequence[int], size: int, *, name: str = "given indices") -> Mask:
    """The mask of the parameters at any places of the flat vector of length ``size``; a (D,) bool tensor will do too.

    Raises:
        InvalidArgument: none, an index out of range, or one that comes twice.

    >>> from_indices([3, 1], 5).count, from_indices(torch.tensor([True, False]), 2).index.tolist()
    (2, [0])
    """
    given = as_numbers("index", index)
    if given.dtype == torch.bool:
        if given.shape != (size,):
            raise InvalidArgument(f"the bool mask has shape {tuple(given.shape)}, expected ({size},)")
        given = given.nonzero().flatten()
    if given.ndim != 1 or not len(given) or given.is_floating_point():
        raise InvalidArgument(f"index of shape {tuple(given.shape)}, {given.dtype}: pass at least one integer place")
    ordered = given.long().sort().values
    if int(ordered[0]) < 0 or int(ordered[-1]) >= size or len(ordered.unique()) < len(ordered):
        raise InvalidArgument(f"index must hold different places from 0 to {size - 1}: got {_some(ordered)}")
    return Mask(ordered, size, name)


@checked
def by_name(layers: Layers, chosen: ParameterFilter) -> Mask:
    """The mask of all parameters whose names pass the filter: a layer, all biases.

    Args:
        layers: a model (its trainable parameters), tensors by name, or an operator's ``parameters``.
        chosen: a glob such as ``"layer4.*"``, a list of globs, a compiled pattern, or a predicate (name, None) -> bool.

    Raises:
        InvalidArgument: nothing passes.

    >>> by_name(nn.Linear(2, 1), "bias").index.tolist()
    [2]
    """
    parameters = layout(layers)
    places = [
        torch.arange(parameters.size, device="cpu")[parameters.slices[name]] for name in matching(parameters.names, chosen)
    ]
    return Mask(torch.cat(places), parameters.size, str(chosen))


@checked
def from_pruned(model: nn.Module, *, params: ParameterFilter = None) -> Mask:
    """The mask of the parameters that ``torch.nn.utils.prune`` has kept, in the order of the model's curvature operators.

    Pruning moves a parameter behind the others of its module and keeps its mask in a buffer; parameters without one count
    as kept.

    Args:
        model: pruned, with its ``..._mask`` buffers (before ``prune.remove``).
        params: the same filter as the operator's.

    Raises:
        InvalidArgument: nothing is pruned, or nothing is left.

    >>> from torch.nn.utils import prune
    >>> layer = nn.Linear(2, 1)
    >>> _ = prune.custom_from_mask(layer, "weight", torch.tensor([[1, 0]]))
    >>> from_pruned(layer).index.tolist(), list(dict(layer.named_parameters()))
    ([0, 1], ['bias', 'weight_orig'])
    """
    buffers = {name: tensor for name, tensor in model.named_buffers() if name.endswith(BUFFER)}
    if not buffers:
        raise InvalidArgument(
            "the model has no mask of torch.nn.utils.prune: after prune.remove the zeros are the mask, "
            "masks.from_dict({name: p != 0 for name, p in model.named_parameters()})"
        )
    return from_dict(buffers, layers=layout(model, params=params))


@checked
def from_dict(tensors: Mapping[str, Tensor], *, layers: Layers | None = None) -> Mask:
    """The mask of booleans, or zeros and ones, by parameter name.

    Args:
        tensors: by name; in the order of the operator's parameters, unless ``layers`` tells it.
        layers: whose order it is brought into: a model, tensors by name, or an operator's ``parameters``.

    Raises:
        InvalidArgument: a name is missing, a shape differs, numbers that are no mask, or nothing is chosen.

    >>> layers = {"a": torch.zeros(2), "b": torch.zeros(1)}
    >>> from_dict({"b": torch.tensor([True]), "a": torch.tensor([0, 1])}, layers=layers).index
    tensor([1, 2])
    """
    named = layout(tensors if layers is None else layers)
    if not named.names:
        raise InvalidArgument("there is no tensor: pass one for each parameter, by name")
    found = as_mask(tensors, named.size, named)
    if not isinstance(found, Mask):
        raise InvalidArgument("the tensors hold other numbers than 0 and 1: pass masks, or masks.by_score(tensors) for scores")
    return Mask(found.index, found.size, "given by name", named)


@checked
def n_of_m(weights: Weights, n: int = 2, m: int = 4, *, params: ParameterFilter = None) -> Mask:
    """The mask of an N:M pattern: the n largest magnitudes of every m neighbours in the flat order of each tensor.

    Args:
        weights: a model, tensors by name, or the flat vector.
        n: how many are kept of each m.
        m: neighbours along a row; a tensor whose size is no multiple of m keeps its last, shorter group whole.
        params: for a model, the same filter as the operator's.

    >>> n_of_m(torch.tensor([1.0, 4.0, 3.0, 2.0]), 2, 4).index.tolist()
    [1, 2]
    """
    if not 1 <= n <= m:
        raise InvalidArgument(f"n={n}, m={m}: choose 1 <= n <= m")
    magnitudes = flat(weights, params).abs().cpu()
    lengths = [len(magnitudes)] if isinstance(weights, Tensor) else layout(weights, params=params).lengths
    kept = torch.ones(len(magnitudes), dtype=torch.bool, device="cpu")
    start = 0
    for length in lengths:
        whole = start + length - length % m
        groups = magnitudes[start:whole].reshape(-1, m)
        chosen = torch.zeros_like(groups, dtype=torch.bool)
        chosen.scatter_(1, groups.argsort(dim=1, descending=True, stable=True)[:, :n], True)
        kept[start:whole] = chosen.flatten()
        start += length
    named = None if isinstance(weights, Tensor) else layout(weights, params=params)
    return Mask(kept.nonzero().flatten(), len(magnitudes), f"{n}:{m}", named)


def _some(values: Tensor) -> str:
    listed = values.tolist()
    return str(listed) if len(listed) <= 6 else f"[{', '.join(map(str, listed[:3]))}, ..., {listed[-1]}]"
