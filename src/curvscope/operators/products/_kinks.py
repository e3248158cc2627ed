"""On which side of its kink each unit is: noted at the parameters, and repeated at others.

A piecewise linear network has the Hessian of its current linear piece. A difference of gradients crosses kinks, each of which
adds a jump over the step: smaller steps cross fewer, with larger jumps, so that no step is right. On 3c3d, after 30 steps, the
error was 20 to 200 % of ||H|| for steps from 0.1 to 3e-4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from curvscope.operators.products._constants import FrozenConstants

Choose = Callable[[Tensor], Tensor]
"""Makes the pattern that is used of the one that was found here."""


class FixedPieces(FrozenConstants):
    """Constants of reverse mode, and sides of kinks, noted in one evaluation and used again in others.

    Known are ReLU and its relatives, clamping, absolute values, maximum and minimum of two tensors, and max-pooling. What other
    functions have of kinks shows in the error that two steps measure.

    >>> pieces, x = FixedPieces(), torch.tensor([-1.0, 2.0])
    >>> with pieces.noted():
    ...     torch.relu(x)
    tensor([-0., 2.])
    >>> with pieces.used():
    ...     torch.relu(x - 3)               # the second unit stays on its side
    tensor([-0., -1.])
    """

    def __init__(self) -> None:
        super().__init__()
        self._patterns: list[Tensor] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note constants and sides."""
        self._patterns = []
        with _Kinks(self._keep), super().noted():  # outside: constants must not see how patterns are computed
            yield

    @contextmanager
    def used(self) -> Iterator[None]:
        """Use them, in order, whatever is computed now."""
        remaining = iter(self._patterns)
        with _Kinks(lambda own: _fitting(own, next(remaining, None))), super().used():
            yield

    def _keep(self, own: Tensor) -> Tensor:
        self._patterns.append(own)
        return own


class _Kinks(TorchFunctionMode):
    """Evaluates functions with kinks as linear ones, on the sides that ``choose`` makes of their own."""

    def __init__(self, choose: Choose) -> None:
        super().__init__()
        self.choose = choose

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        linear = LINEAR.get(func)
        if linear is None or not args or not isinstance(args[0], Tensor) or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        inplace = kwargs.get("inplace", False) or func in IN_PLACE
        options = {name: value for name, value in kwargs.items() if name not in ("inplace", "return_indices")}
        found = linear(self.choose, *args, **options) if args[0].is_floating_point() else None
        if found is None or kwargs.get("return_indices"):
            return func(*args, **kwargs)
        # The caller of what is written in place may look at the argument, not at the result.
        return args[0].copy_(found) if inplace else found


def _relu(choose: Choose, x: Tensor) -> Tensor:
    return torch.where(choose(x.detach() > 0), x, 0.0 * x)


def _leaky_relu(choose: Choose, x: Tensor, negative_slope: float = 0.01) -> Tensor:
    return torch.where(choose(x.detach() > 0), x, negative_slope * x)


def _prelu(choose: Choose, x: Tensor, weight: Tensor) -> Tensor:
    slope = weight.view(-1, *[1] * (x.ndim - 2)) if weight.numel() > 1 and x.ndim > 1 else weight
    return torch.where(choose(x.detach() > 0), x, slope * x)


def _threshold(choose: Choose, x: Tensor, threshold: float, value: float) -> Tensor:
    return torch.where(choose(x.detach() > threshold), x, torch.full_like(x, value))


def _abs(choose: Choose, x: Tensor) -> Tensor:
    return torch.where(choose(x.detach() > 0), x, -x)


def _clamp(choose: Choose, x: Tensor, min: Any = None, max: Any = None) -> Tensor | None:
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        return None
    for bound, outside in ((min, torch.lt), (max, torch.gt)):
        if bound is not None:
            x = torch.where(choose(outside(x.detach(), bound)), torch.full_like(x, bound), x)
    return x


def _hardtanh(choose: Choose, x: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor | None:
    return _clamp(choose, x, min_val, max_val)


def _relu6(choose: Choose, x: Tensor) -> Tensor | None:
    return _clamp(choose, x, 0.0, 6.0)


def _clamp_max(choose: Choose, x: Tensor, max: Any) -> Tensor | None:
    return _clamp(choose, x, None, max)


def _maximum(choose: Choose, x: Tensor, other: Tensor) -> Tensor:
    return torch.where(choose(x.detach() > other.detach()), x, other)


def _minimum(choose: Choose, x: Tensor, other: Tensor) -> Tensor:
    return torch.where(choose(x.detach() < other.detach()), x, other)


def _pool(with_indices: Callable[..., tuple[Tensor, Tensor]], axes: int) -> Callable[..., Tensor]:
    """Pooling by the places of the winners."""

    def pool(choose: Choose, x: Tensor, *args: Any, **options: Any) -> Tensor:
        winners = choose(with_indices(x.detach(), *args, **options)[1])
        return x.flatten(-axes).gather(-1, winners.flatten(-axes)).view(winners.shape)

    return pool


LINEAR: dict[Any, Callable[..., Tensor | None]] = {
    **dict.fromkeys((functional.relu, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_), _relu),
    functional.leaky_relu: _leaky_relu,
    functional.relu6: _relu6,
    functional.hardtanh: _hardtanh,
    functional.threshold: _threshold,
    torch.prelu: _prelu,
    **dict.fromkeys((torch.abs, torch.Tensor.abs, torch.Tensor.__abs__), _abs),
    **dict.fromkeys((torch.clamp, torch.Tensor.clamp, torch.Tensor.clamp_), _clamp),
    **dict.fromkeys((torch.clamp_min, torch.Tensor.clamp_min, torch.Tensor.clamp_min_), _clamp),
    **dict.fromkeys((torch.clamp_max, torch.Tensor.clamp_max, torch.Tensor.clamp_max_), _clamp_max),
    **dict.fromkeys((torch.maximum, torch.Tensor.maximum), _maximum),
    **dict.fromkeys((torch.minimum, torch.Tensor.minimum), _minimum),
    functional.max_pool1d: _pool(functional.max_pool1d_with_indices, 1),
    functional.max_pool2d: _pool(functional.max_pool2d_with_indices, 2),
    functional.max_pool3d: _pool(functional.max_pool3d_with_indices, 3),
    functional.adaptive_max_pool1d: _pool(functional.adaptive_max_pool1d_with_indices, 1),
    functional.adaptive_max_pool2d: _pool(functional.adaptive_max_pool2d_with_indices, 2),
    functional.adaptive_max_pool3d: _pool(functional.adaptive_max_pool3d_with_indices, 3),
}
"""Functions with kinks, as their current linear piece; None where the arguments are others than those that are known."""

IN_PLACE = (torch.relu_, torch.Tensor.relu_, torch.Tensor.clamp_, torch.Tensor.clamp_min_, torch.Tensor.clamp_max_)


def _fitting(own: Tensor, noted: Tensor | None) -> Tensor:
    """The noted pattern; the own one where another branch was taken."""
    return own if noted is None or noted.shape != own.shape else noted
