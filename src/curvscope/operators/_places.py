"""Which rows of a matrix are meant: places, masks, or masks by the names of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators.base import Operator


def is_index(which: object) -> bool:
    """Return whether rows are chosen by places or by a mask, rather than by the names of parameters."""
    if isinstance(which, Tensor | np.ndarray) or isinstance(getattr(which, "index", None), Tensor):
        return True
    if isinstance(which, Mapping):
        return True
    return isinstance(which, Sequence) and not isinstance(which, str) and bool(which) and not isinstance(which[0], str)


def places_of(which: Any, operator: Operator) -> Tensor:
    """The (n,) int64 places that an index or a mask chooses.

    Args:
        which: places (integers, each once), a mask (D,) of booleans, a :class:`.Mask`, or masks by the names of the parameters.
        operator: square, with D rows.

    Raises:
        InvalidType: something else. InvalidArgument: wrong length, places outside or twice, nothing chosen.
    """
    size = operator.shape[0]
    if operator.shape[0] != operator.shape[1]:
        raise InvalidArgument(f"a submatrix by places needs a square operator, got {operator!r}")
    if isinstance(getattr(which, "index", None), Tensor):
        if getattr(which, "size", size) != size:
            raise InvalidArgument(f"the mask is of {which.size} parameters, the operator has {size}: use one params filter")
        which = which.index
    if isinstance(which, Mapping):
        if not hasattr(operator, "parameters"):
            raise InvalidArgument("masks by name need an operator on named parameters: pass one mask (D,), or places")
        which = operator.parameters.flatten({name: torch.as_tensor(mask, device="cpu").bool() for name, mask in which.items()})
    chosen = torch.as_tensor(which, device="cpu").detach().cpu()
    if chosen.dtype == torch.bool and chosen.ndim == 1:
        if len(chosen) != size:
            raise InvalidArgument(f"the mask has {len(chosen)} entries, the operator {size} rows: pass one for each row")
        chosen = chosen.nonzero().flatten()
    if chosen.ndim != 1 or chosen.is_floating_point() or chosen.is_complex() or chosen.dtype == torch.bool:
        raise InvalidType(
            f"a submatrix is chosen by places or a mask, got {tuple(chosen.shape)} of {chosen.dtype}: pass (n,) integers, (D,) "
            "booleans, {name: mask}, a cs.Mask such as ranking.first(k), or names of parameters"
        )
    chosen = chosen.long()
    if not len(chosen):
        raise InvalidArgument("a submatrix of no rows: choose at least one place")
    if not 0 <= int(chosen.min()) <= int(chosen.max()) < size:
        raise InvalidArgument(f"places from {int(chosen.min())} to {int(chosen.max())}: choose among 0 to {size - 1}")
    if len(chosen.unique()) != len(chosen):
        raise InvalidArgument("a place is chosen twice: choose each once")
    return chosen
