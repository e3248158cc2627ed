"""Coordinate subspaces: a ranking of parameters (a mask for every k), and one fixed mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators import Parameters
from curvscope.system import Displayed, Hinted, checked


@dataclass(frozen=True, repr=False)
class Ranking(Displayed, Hinted):
    """Parameters by descending importance; its k first are a mask, that is a coordinate subspace, for every k at once.

    Attributes:
        order: (D,) int64, a permutation of the parameters' places in the flat vector; ties keep the flat order.
        name: what it ranks by.
        layout: names and shapes of the parameters, where it was made from tensors by name; compared with the solution's.
    """

    order: Tensor
    name: str
    layout: Parameters | None = field(default=None, repr=False, compare=False)

    _instead: ClassVar[Mapping[str, str]] = {
        "indices": "ranking.order",
        "index": "ranking.order, or ranking.first(k).index",
        "scores": "ranking.order; the scores themselves are not kept",
        "values": "ranking.order",
        "top": "ranking.first(k)",
        "head": "ranking.first(k)",
        "threshold": "ranking.first(k)",
        "to_bool": "ranking.mask(k)",
        "ranks": "ranking.places",
        "count": "ranking.first(k).count",
        "unflatten": "ranking.first(k).unflatten()",
        "save": "torch.save(ranking.order, path), and masks.from_order(torch.load(path))",
    }

    def __len__(self) -> int:
        return len(self.order)

    def __str__(self) -> str:
        first = ", ".join(map(str, self.order[:8].tolist()))
        return f"Ranking of {self.size} parameters by {self.name}: {first}{', ...' if self.size > 8 else ''}"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """``order`` as a NumPy array (D,)."""
        return np.array(self.order.numpy(), dtype=dtype)

    def __getitem__(self, index: Any) -> Tensor:
        """``order[index]``."""
        return self.order[index]

    def __invert__(self) -> Mask:
        raise InvalidType("a ranking has a mask for every k: choose one, ~ranking.first(k)")

    def __post_init__(self) -> None:
        if self.order.ndim != 1 or self.order.dtype != torch.int64 or not _permutes(self.order):
            raise InvalidArgument(
                f"a ranking's order is a permutation of 0 to D - 1 in int64, got {tuple(self.order.shape)} of "
                f"{self.order.dtype}: pass importance.argsort(descending=True, stable=True)"
            )

    @property
    def size(self) -> int:
        """D, the number of parameters ranked."""
        return len(self.order)

    @property
    def places(self) -> Tensor:
        """(D,) int64, the place of each parameter in the ranking: the inverse permutation of ``order``.

        >>> Ranking(torch.tensor([2, 0, 1]), "example").places.tolist()
        [1, 2, 0]
        """
        places = torch.empty_like(self.order)
        places[self.order] = torch.arange(self.size, device="cpu")
        return places

    @checked
    def first(self, k: int) -> Mask:
        """The k first, as one fixed mask."""
        self._check(k)
        return Mask(self.order[:k].sort().values, self.size, f"{self.name}, k = {k}", self.layout)

    @checked
    def mask(self, k: int) -> Tensor:
        """(D,) bool, True at the k first.

        >>> Ranking(torch.tensor([2, 0, 1]), "example").mask(2).tolist()
        [True, False, True]
        """
        self._check(k)
        mask = torch.zeros(self.size, dtype=torch.bool, device="cpu")
        mask[self.order[:k]] = True
        return mask

    def _check(self, k: int) -> None:
        if not 0 <= k <= self.size:
            raise InvalidArgument(f"k={k}: choose 0 to D = {self.size}")


@dataclass(frozen=True, repr=False)
class Mask(Displayed, Hinted):
    """One fixed set of parameters.

    Attributes:
        index: (k',) int64, ascending places in the flat vector.
        size: D.
        name: what it is.
        layout: names and shapes of the parameters, where it was made from tensors by name; compared with the solution's.
    """

    index: Tensor
    size: int
    name: str
    layout: Parameters | None = field(default=None, repr=False, compare=False)

    _instead: ClassVar[Mapping[str, str]] = {
        "indices": "mask.index",
        "mask": "mask.to_bool()",
        "values": "mask.to_bool()",
        "to_tensor": "mask.to_bool()",
        "tensor": "mask.to_bool()",
        "numpy": "np.asarray(mask)",
        "tolist": "mask.to_bool().tolist()",
        "num": "mask.count",
        "k": "mask.count",
        "nonzero": "mask.index",
        "fraction": "mask.count / mask.size",
        "sparsity": "1 - mask.count / mask.size",
        "shape": "(mask.size,)",
        "to_dict": "mask.unflatten()",
        "save": "torch.save(mask.to_bool(), path); overlap(solution, torch.load(path)) takes it",
    }

    def __len__(self) -> int:
        """D, the length of the mask as an array; ``count`` is how many parameters it holds."""
        return self.size

    def __str__(self) -> str:
        return f"Mask of {self.count} of {self.size} parameters ({100 * self.count / max(1, self.size):.3g} %): {self.name}"

    @checked
    def unflatten(self) -> dict[str, Tensor]:
        """Booleans by parameter name, in the parameters' shapes, as ``torch.nn.utils.prune`` takes them.

        Raises:
            InvalidArgument: it was not made from a model or from tensors by name.
        """
        if self.layout is None:
            raise InvalidArgument("the mask does not know its parameters' names: use H.unflatten(mask.to_bool())")
        return dict(self.layout.unflatten(self.to_bool()))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """:meth:`to_bool` as a NumPy array (D,)."""
        return np.array(self.to_bool().numpy(), dtype=dtype)

    def sum(self) -> int:
        """The same as ``count``, as of an array of booleans."""
        return self.count

    def __getitem__(self, index: Any) -> Tensor:
        """``to_bool()[index]``."""
        return self.to_bool()[index]

    def __invert__(self) -> Mask:
        """All parameters that it does not hold.

        >>> (~Mask(torch.tensor([0, 2]), 3, "example")).index.tolist()
        [1]
        """
        return self._made(~self.to_bool(), f"not {self.name}")

    def __and__(self, other: Mask) -> Mask:
        """The parameters that both hold."""
        return self._made(self.to_bool() & self._other(other), f"{self.name} and {other.name}")

    def __or__(self, other: Mask) -> Mask:
        """The parameters that either holds."""
        return self._made(self.to_bool() | self._other(other), f"{self.name} or {other.name}")

    def __sub__(self, other: Mask) -> Mask:
        """The parameters that it holds and the other does not."""
        return self._made(self.to_bool() & ~self._other(other), f"{self.name} without {other.name}")

    def _made(self, chosen: Tensor, name: str) -> Mask:
        return Mask(chosen.nonzero().flatten(), self.size, name, self.layout)

    def _other(self, other: Any) -> Tensor:
        if not isinstance(other, Mask):
            raise InvalidType(
                f"a mask and a {type(other).__name__}: pass two masks, ranking.first(k) or masks.from_indices(...)"
            )
        if other.size != self.size:
            raise InvalidArgument(f"the masks have {self.size} and {other.size} parameters: use one params filter for both")
        return other.to_bool()

    @property
    def count(self) -> int:
        """k', how many parameters it holds."""
        return len(self.index)

    def to_bool(self) -> Tensor:
        """(D,) bool.

        >>> Mask(torch.tensor([0, 2]), 3, "example").to_bool().tolist()
        [True, False, True]
        """
        mask = torch.zeros(self.size, dtype=torch.bool, device="cpu")
        mask[self.index] = True
        return mask


def _permutes(order: Tensor) -> bool:
    """Return whether every place from 0 to D - 1 is there, D of them. Cost: D bytes."""
    if len(order) and not 0 <= int(order.min()) <= int(order.max()) < len(order):
        return False
    seen = torch.zeros(len(order), dtype=torch.bool, device=order.device)
    seen[order] = True
    return bool(seen.all())
