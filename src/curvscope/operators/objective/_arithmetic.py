"""What a loss is really computed in: models round to float32, or to bfloat16, inside, whatever their dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class CoarsestArithmetic(TorchFunctionMode):
    """Inside, notes the coarsest floating-point numbers that carry a gradient.

    Language models take norms, softmax and loss in float32 though their parameters are float64 or bfloat16.

    Attributes:
        rounding: machine epsilon of these numbers; 0 where there were none.

    >>> with CoarsestArithmetic() as arithmetic:
    ...     loss = torch.ones(2, dtype=torch.float64, requires_grad=True).float().sum().double()
    >>> arithmetic.rounding == torch.finfo(torch.float32).eps
    True
    """

    def __init__(self) -> None:
        super().__init__()
        self.rounding = 0.0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else (result,):
            if isinstance(tensor, Tensor) and tensor.requires_grad and tensor.is_floating_point():
                self.rounding = max(self.rounding, torch.finfo(tensor.dtype).eps)
        return result
