"""Coordinate subspaces: a ranking of parameters (a mask for every k), and one fixed mask."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators import Parameters


@dataclass(frozen=True)
class Ranking:
    """Parameters by descending importance; its k first are a mask, that is a coordinate subspace, for every k at once.

    Attributes:
        order: (D,) int64, a permutation of the parameters' places in the flat vector; ties keep the flat order.
        name: what it ranks by.
        layout: names and shapes of the parameters, where it was made from tensors by name; compared with the solution's.
    """

    order: Tensor
    name: str
    layout: Parameters | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.order)

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

    def first(self, k: int) -> Mask:
        """The k first, as one fixed mask."""
        self._check(k)
        return Mask(self.order[:k].sort().values, self.size, f"{self.name}, k = {k}", self.layout)

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


@dataclass(frozen=True)
class Mask:
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

    def __len__(self) -> int:
        """D, the length of the mask as an array; ``count`` is how many parameters it holds."""
        return self.size

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
