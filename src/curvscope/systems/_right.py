"""Right-hand sides as users pass them, checked before any product."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.operators.base import Operator


def plain_right(operator: Operator, right: Any) -> Tensor:
    """Return a tensor in the operator's dtype without its graph.

    Raises:
        InvalidType, InvalidArgument: anything else.
    """
    operator._check(right, operator.shape[0])
    plain: Tensor = right.detach()
    return plain


def check_right(columns: Tensor, operator: Operator) -> None:
    """Raise InvalidArgument unless columns are (D, n) and finite."""
    if columns.ndim != 2 or columns.shape[0] != operator.shape[0]:
        raise InvalidArgument(
            f"right has shape {tuple(columns.shape)}: pass ({operator.shape[0]},) or ({operator.shape[0]}, n)"
        )
    if not bool(torch.isfinite(columns).all()):
        raise InvalidArgument("right has entries that are NaN or infinite: look at where it was computed")
