"""Rankings of parameters; the k first of a ranking are a mask, that is a coordinate subspace, for every k at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument, InvalidType, NotFinite
from curvscope.operators.parameters import ParameterFilter, select


@dataclass(frozen=True)
class Ranking:
    """Parameters by descending importance.

    Attributes:
        order: (D,) int64, a permutation of the parameters' places in the flat vector; ties keep the flat order.
        name: what it ranks by.
    """

    order: Tensor
    name: str

    @property
    def size(self) -> int:
        """D, the number of parameters ranked."""
        return len(self.order)

    def mask(self, k: int) -> Tensor:
        """(D,) bool, True at the k first.

        >>> Ranking(torch.tensor([2, 0, 1]), "example").mask(2).tolist()
        [True, False, True]
        """
        if not 0 <= k <= self.size:
            raise InvalidArgument(f"k={k}: choose 0 to D = {self.size}")
        mask = torch.zeros(self.size, dtype=torch.bool)
        mask[self.order[:k]] = True
        return mask


def by_magnitude(weights: nn.Module | Mapping[str, Tensor] | Tensor, *, params: ParameterFilter = None) -> Ranking:
    """Parameters by descending absolute value.

    Args:
        weights: a model (its trainable parameters, in the order of its curvature operators), tensors by name in that order,
            or the flat (D,) vector.
        params: for a model, the same filter as the operator's.

    Raises:
        NotFinite: a parameter is NaN or infinite.

    Cost: one sort of D numbers; no products.

    >>> by_magnitude(torch.tensor([0.1, -3.0, 2.0])).order.tolist()
    [1, 2, 0]
    """
    match weights:
        case nn.Module():
            flat = _concatenate(select(weights, params))
        case Mapping():
            flat = _concatenate(weights)
        case Tensor():
            flat = weights.detach().reshape(-1)
        case _:
            raise InvalidType(f"cannot rank a {type(weights).__name__}: pass a model, tensors by name, or a flat vector")
    if params is not None and not isinstance(weights, nn.Module):
        raise InvalidArgument("params selects from a model: leave it out for tensors")
    if not bool(torch.isfinite(flat).all()):
        raise NotFinite("the parameters hold NaN or infinity: load a checkpoint from before training diverged")
    return Ranking(flat.abs().argsort(descending=True, stable=True).cpu(), "magnitude")


def _concatenate(tensors: Mapping[str, Tensor]) -> Tensor:
    if not tensors:
        raise InvalidArgument("there are no tensors to rank")
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors.values()])
