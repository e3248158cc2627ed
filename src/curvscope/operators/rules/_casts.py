"""Casts that a model writes out, such as ``x.float()``, in the arithmetic that its curvature is computed in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

BY_NAME: dict[Callable[..., Any], torch.dtype] = {
    Tensor.float: torch.float32,
    Tensor.half: torch.float16,
    Tensor.bfloat16: torch.bfloat16,
    Tensor.double: torch.float64,
}
"""Methods whose names are dtypes."""


def narrower_than(dtype: torch.dtype) -> frozenset[torch.dtype]:
    """Floating-point dtypes that round what ``dtype`` holds.

    >>> torch.float32 in narrower_than(torch.float64), torch.float64 in narrower_than(torch.float32)
    (True, False)
    """
    kinds = (torch.float32, torch.bfloat16, torch.float16)
    return frozenset(kind for kind in kinds if torch.finfo(kind).bits < torch.finfo(dtype).bits)


class Casts(TorchFunctionMode):
    """Inside, casts to one of some dtypes, and tensors made in them, are of another.

    A float32 model that says ``x.float()`` cannot be evaluated in float64 otherwise, and one that says
    ``softmax(scores.float())`` would be evaluated in float32 all the same.

    Args:
        replaced: the dtypes. dtype: what to use in their place.

    Attributes:
        used: whether a cast was replaced.

    >>> with Casts(frozenset({torch.float32}), torch.float64):
    ...     print(torch.ones(1, dtype=torch.int64).float().dtype, torch.zeros(1).dtype)
    torch.float64 torch.float64
    """

    def __init__(self, replaced: frozenset[torch.dtype], dtype: torch.dtype) -> None:
        super().__init__()
        self.replaced, self.dtype = replaced, dtype
        self.used = False
        self._default = torch.get_default_dtype()

    def __enter__(self) -> Any:
        self._default = torch.get_default_dtype()
        if self._default in self.replaced:
            torch.set_default_dtype(self.dtype)
        return TorchFunctionMode.__enter__(self)

    def __exit__(self, *exception: Any) -> None:
        TorchFunctionMode.__exit__(self, *exception)
        torch.set_default_dtype(self._default)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if BY_NAME.get(func) in self.replaced:
            self.used = True
            return args[0].to(self.dtype, **kwargs)
        if any(value.__class__ is torch.dtype for value in args) and func is not torch.promote_types:
            args = tuple(self._there(value) for value in args)
        if kwargs.get("dtype") in self.replaced:
            self.used = True
            kwargs = {**kwargs, "dtype": self.dtype}
        if func is Tensor.type and len(args) > 1 and args[1] == "torch.FloatTensor":
            args = args[0], self._there(torch.float32)
        return func(*args, **kwargs)

    def _there(self, value: Any) -> Any:
        if value.__class__ is not torch.dtype or value not in self.replaced:
            return value
        self.used = True
        return self.dtype
