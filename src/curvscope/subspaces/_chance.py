"""What overlap chance would give for these very eigenvectors: random masks, uniform or layer by layer, without sampling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators import ParameterFilter
from curvscope.store import Saved
from curvscope.subspaces._curve import OverlapCurve
from curvscope.subspaces._given import as_subspace
from curvscope.subspaces._leverage import growing_leverage
from curvscope.subspaces._ranking import Mask, Ranking
from curvscope.subspaces._spaces import Basis, columns
from curvscope.subspaces._weights import Layers, check_params, layer_index, layout
from curvscope.system import Displayed, Hinted, checked, frame


@dataclass(frozen=True, repr=False)
class NullModel(Saved, Displayed, Hinted):
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

    _instead: ClassVar[Mapping[str, str]] = {
        "chance": "null.mean",
        "expected": "null.mean",
        "stderr": "null.std",
        "zscore": "null.z(curve)",
        "z_score": "null.z(curve)",
        "p_value": "null.z(curve), and scipy.stats.norm.sf of it where that is about normal",
        "samples": "null.mean and null.std, which are exact: nothing was sampled",
    }

    @property
    def value(self) -> Tensor:
        """The same as ``mean``."""
        return self.mean

    @property
    def values(self) -> Tensor:
        """The same as ``mean``: the word for the numbers of every curve."""
        return self.mean

    def __len__(self) -> int:
        return len(self.k)

    def __iter__(self) -> Iterator[Tensor]:
        """(mean, std), to unpack."""
        yield self.mean
        yield self.std

    @checked
    def at(self, k: int) -> tuple[float, float]:
        """(mean, std) for one k."""
        if not 1 <= k <= len(self.k):
            raise InvalidArgument(f"k={k}: the null model goes from 1 to {len(self.k)}")
        return float(self.mean[k - 1]), float(self.std[k - 1])

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {"name": self.name, "k": self.k.tolist(), "mean": self.mean.tolist(), "std": self.std.tolist()}

    def to_pandas(self) -> Any:
        """A data frame with a row for each k: mean, std; needs pandas."""
        return frame({name: numbers for name, numbers in self.to_dict().items() if name != "name"})

    @checked
    def plot(self, ax: Any = None) -> Any:
        """Draw the mean with a band of one standard deviation into matplotlib axes (default: pyplot's current ones)."""
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.gca()
        (line,) = ax.plot(self.k, self.mean, linestyle=":", label=self.name)
        ax.fill_between(self.k, self.mean - self.std, self.mean + self.std, color=line.get_color(), alpha=0.2, linewidth=0)
        return ax

    def __str__(self) -> str:
        last = len(self.k)
        shown = [*[k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if k < last][-9:], last]
        rows = [f"Overlap with {self.name}, k = 1 to {last}", "", f"{'k':>7}  {'mean':>9}  {'std':>9}"]
        return "\n".join([*rows, *(f"{k:>7}  {self.at(k)[0]:>9.4g}  {self.at(k)[1]:>9.3g}" for k in shown)])

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
