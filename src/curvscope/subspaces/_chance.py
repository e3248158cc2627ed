"""What overlap chance would give for these very eigenvectors: random masks, uniform or layer by layer, without sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators import ParameterFilter
from curvscope.subspaces._curve import OverlapCurve
from curvscope.subspaces._given import as_subspace
from curvscope.subspaces._leverage import growing_leverage
from curvscope.subspaces._ranking import Mask, Ranking
from curvscope.subspaces._spaces import Basis, columns
from curvscope.subspaces.masks import Layers, check_params, layer_index, layout
from curvscope.system import checked


@dataclass(frozen=True)
class NullModel:
    """Mean and standard deviation of the overlap of given eigenspaces with a random mask, k = 1, ..., K.

    Attributes:
        k: (K,) int64.
        mean: (K,) float64.
        std: (K,) float64.
        name: which masks.
    """

    k: Tensor
    mean: Tensor
    std: Tensor
    name: str

    def z(self, curve: OverlapCurve) -> Tensor:
        """Standard deviations by which the curve lies above the mean; 0 where there is no spread."""
        distance = curve.value[: len(self.k)] - self.mean[: len(curve.k)]
        return torch.nan_to_num(distance / self.std[: len(curve.k)], nan=0.0, posinf=0.0, neginf=0.0)

    def ratio(self, curve: OverlapCurve) -> Tensor:
        """The curve over the mean."""
        return curve.value[: len(self.k)] / self.mean[: len(curve.k)]


@checked
def mask_null(basis: Basis, mask: Any, *, layers: Layers | None = None, params: ParameterFilter = None) -> NullModel:
    r"""Chance level for the masks of a ranking, or for one mask: exact mean and variance over random masks, for every k.

    Without ``layers`` the mask is a uniformly random k-subset: with leverage scores l_j of the top-k eigenspace

    .. math:: \mathrm{mean} = \frac kD, \qquad
        \operatorname{Var} = \frac{k (D - k)}{D - 1}\, \Big(\overline{l^2} - \bar l^{\,2}\Big) \Big/ k^2 .

    With ``layers`` it takes from each tensor as many parameters as the ranking's mask does, uniformly within: the sum of the
    same expressions over tensors. An overlap above the first and not above the second is explained by layer composition. For a
    fixed mask of m parameters the number taken is m for every k.

    Args:
        basis: a solution, or orthonormal columns (D, K).
        mask: a ranking, or a mask in any form that :func:`.overlap` takes; its sizes (and layer counts) are copied.
        layers: a model, tensors by name, or the operator's ``parameters``.
        params: for a model, the operator's filter.

    Cost: one read of V; 4 D K operations; memory: D numbers and a few columns.

    Source: sampling without replacement from a finite population, Cochran (1977), section 2.

    >>> null = mask_null(torch.eye(4)[:, :1], Ranking(torch.arange(4), "example"))
    >>> float(null.mean), round(float(null.std), 4)                            # overlap 1 with probability 1/4
    (0.25, 0.433)
    """
    check_params(layers, params)
    given = as_subspace(mask, basis)
    if not isinstance(given, Ranking | Mask):
        raise InvalidType("columns have no random masks: pass a ranking or a mask, or use curve.chance for random spaces")
    size = columns(basis).shape[0]
    if given.size != size:
        raise InvalidArgument(f"the mask is of {given.size} parameters, the vectors have {size} rows: pass one of the same")
    if layers is None:
        owner, name = torch.zeros(size, dtype=torch.int64, device="cpu"), "uniformly random masks"
    else:
        owner, name = layer_index(layout(layers, params=params), size), "random masks, the same number in each layer"
    lengths = torch.bincount(owner).double()
    taken = torch.zeros(len(lengths), dtype=torch.float64, device="cpu")
    if isinstance(given, Mask):
        taken += torch.bincount(owner[given.index], minlength=len(lengths))
    means, variances = [], []
    for k, scores in enumerate(growing_leverage(basis), start=1):
        if isinstance(given, Ranking):
            taken[owner[given.order[k - 1]]] += 1
        first = torch.zeros_like(taken).index_add_(0, owner, scores) / lengths
        second = torch.zeros_like(taken).index_add_(0, owner, scores.square()) / lengths
        spread = taken * (lengths - taken) / (lengths - 1).clamp(min=1) * (second - first.square()).clamp(min=0)
        means.append((taken * first).sum() / k)
        variances.append(spread.sum() / k**2)
    return NullModel(torch.arange(1, len(means) + 1, device="cpu"), torch.stack(means), torch.stack(variances).sqrt(), name)
