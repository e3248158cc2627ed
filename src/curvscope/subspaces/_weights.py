"""Weights and layers as users give them: a model, tensors by name, a flat vector, an operator's parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators import ParameterFilter, Parameters, select

Weights = nn.Module | Mapping[str, Tensor] | Tensor
Layers = nn.Module | Mapping[str, Tensor] | Parameters


def layout(layers: Layers, *, params: ParameterFilter = None) -> Parameters:
    """Names, shapes and places of tensors that are given as a model, by name, or as ``Parameters`` already.

    >>> layout(nn.Linear(2, 1)).lengths
    (2, 1)
    """
    check_params(layers, params)
    match layers:
        case Parameters():
            return layers
        case nn.Module():
            tensors: Mapping[str, Tensor] = select(layers, params)
        case Mapping():
            tensors = layers
        case _:
            raise InvalidType(f"a {type(layers).__name__} has no layers: pass a model, tensors by name, or H.parameters")
    return Parameters(tuple(tensors), tuple(tensor.shape for tensor in tensors.values()))


def layer_index(layers: Parameters, size: int) -> Tensor:
    """(D,) int64: which tensor each parameter belongs to.

    Raises:
        InvalidArgument: the tensors do not hold ``size`` parameters.
    """
    if layers.size != size:
        raise InvalidArgument(
            f"the layers hold {layers.size} parameters, expected D = {size}: use the operator's params filter"
        )
    return torch.repeat_interleave(torch.arange(len(layers.lengths), device="cpu"), torch.tensor(layers.lengths, device="cpu"))


def flat(weights: Weights, params: ParameterFilter = None) -> Tensor:
    """Return weights as one vector (D,), in the order of their tensors.

    Raises:
        InvalidType: they are none. InvalidArgument: there are no tensors, or a filter that could select nothing.

    >>> flat({"a": torch.zeros(2), "b": torch.ones(1)})
    tensor([0., 0., 1.])
    """
    if isinstance(value := getattr(weights, "value", None), Tensor):  # of cs.diagonal(H)
        weights = value
    match weights:
        case nn.Module():
            tensors: list[Tensor] = list(select(weights, params).values())
        case Mapping():
            tensors = list(weights.values())
        case Tensor():
            tensors = [weights]
        case _:
            raise InvalidType(f"cannot rank a {type(weights).__name__}: pass a model, tensors by name, or a flat vector")
    check_params(weights, params)
    if not sum(tensor.numel() for tensor in tensors):
        raise InvalidArgument("there are no tensors to rank")
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def check_params(weights: object, params: ParameterFilter) -> None:
    """Raise InvalidArgument for a filter beside anything but a model: it would be ignored."""
    if params is not None and not isinstance(weights, nn.Module):
        given = f"a {type(weights).__name__}" if weights is not None else "no model"
        raise InvalidArgument(f"params={params!r} selects from a model, got {given}: pass the model, or leave params out")
