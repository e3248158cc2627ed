"""Logits over a large vocabulary that are not computed until it is known what for.

A linear layer with a large output returns a stand-in. Taking tokens apart or together is done to the layer's inputs instead.
Cross-entropy of the stand-in goes by chunks of tokens, and so do the maps of Gauss-Newton and Fisher matrices. Whatever else is
done to it is done to the logits themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_map_only

from curvscope.errors import InvalidArgument
from curvscope.operators.rules.token_losses._functions import TokenLosses

MIN_CHUNKED_LOGITS = 1 << 24
"""Logits of a mini-batch from which they are taken in chunks: 64 MiB in float32, of which a product needs several."""

MIN_CLASSES = 4096
"""Fewer classes are no vocabulary: a layer of the network itself is as wide."""

METADATA = {
    getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "layout", "is_sparse", "is_nested")
} | {Tensor.size, Tensor.dim, Tensor.numel, Tensor.is_floating_point, Tensor.__len__}


class PendingLogits(Tensor):
    """Stands for ``linear(inputs, weight, bias)``, with the classes on the last axis or on axis 1.

    Args:
        inputs: (..., E).
        weight: (V, E).
        bias: (V,) or None.
        second: whether the classes are axis 1.
        normalized: whether it stands for the log-softmax of the logits.
    """

    inputs: Tensor
    weight: Tensor
    bias: Tensor | None
    second: bool
    normalized: bool
    computed: Tensor | None
    views: list[int]

    @staticmethod
    def __new__(
        cls: type[PendingLogits],
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *,
        second: bool = False,
        normalized: bool = False,
    ) -> PendingLogits:
        """Make the stand-in, without memory of its own."""
        shape = [*inputs.shape[:-1], weight.shape[0]]
        if second:
            shape.insert(1, shape.pop())
        made = Tensor._make_wrapper_subclass(cls, shape, dtype=inputs.dtype, device=inputs.device)
        made.inputs, made.weight, made.bias, made.second, made.normalized = inputs, weight, bias, second, normalized
        made.computed, made.views = None, [1]
        return made

    def logits(self) -> Tensor:
        """The tensor of logits, computed once."""
        if self.computed is None:
            found = functional.linear(self.inputs, self.weight, self.bias)
            found = found.log_softmax(-1) if self.normalized else found
            self.computed = found.movedim(-1, 1) if self.second else found
        return self.computed

    @property
    def is_pending(self) -> bool:
        """True if these are logits that nobody has computed, and so may have written to."""
        return self.computed is None and not self.normalized

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs of the layer, (tokens, E), its weight and its bias, zero where it has none."""
        bias = self.bias
        if bias is None:
            bias = torch.zeros(len(self.weight), dtype=self.weight.dtype, device=self.weight.device)
        return self.inputs.reshape(-1, self.inputs.shape[-1]), self.weight, bias

    def of(self, inputs: Tensor, **changes: Any) -> PendingLogits:
        """The same layer of other inputs."""
        kept = {"second": self.second, "normalized": self.normalized} | changes
        made = PendingLogits(inputs, self.weight, self.bias, **kept)
        made.views = self.views  # how many there are; the views themselves would keep each other alive
        made.views[0] += 1
        return made

    def refuse_other_views(self, func: Callable[..., Any]) -> None:
        """Raise where other stand-ins of the same logits would not see that these are written to."""
        if self.views[0] > 1:
            raise InvalidArgument(
                f"the model writes to logits in place ({getattr(func, '__name__', func)}) of which it has taken a view: write "
                "out of place, as in logits = logits.masked_fill(...)"
            )

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do to the inputs what can be done there, and everything else to the logits."""
        kwargs = kwargs or {}
        if func in METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        first = args[0] if args else None
        if isinstance(first, PendingLogits) and _writes(func):
            first.refuse_other_views(func)
        rule = KEPT.get(func)
        if (
            rule is not None and isinstance(first, PendingLogits) and first.computed is None
        ):  # what is computed may have been written to
            found = rule(*args, **kwargs)
            if found is not NotImplemented:
                return found
        args, kwargs = tree_map_only(PendingLogits, PendingLogits.logits, (args, kwargs))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Do what came past :meth:`__torch_function__` to the logits."""
        args, kwargs = tree_map_only(PendingLogits, PendingLogits.logits, (args, kwargs or {}))
        return func(*args, **kwargs)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        """Say what it is."""
        return f"PendingLogits(shape={tuple(self.shape)})"


WRITING = {"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__idiv__", "__ipow__", "__imod__"}


def _writes(func: Callable[..., Any]) -> bool:
    """Return whether a function writes to its first argument."""
    name = getattr(func, "__name__", "")
    return name in WRITING or (name.endswith("_") and not name.endswith("__") and name != "requires_grad_")


def materialized(value: Any) -> Any:
    """A network's output with the logits themselves."""
    return tree_map_only(PendingLogits, PendingLogits.logits, value)


# --- what is done to the inputs -----------------------------------------------------------------------------------------------


def _reshaped(logits: PendingLogits, *shape: Any) -> Any:
    sizes = list(shape[0]) if len(shape) == 1 and isinstance(shape[0], list | tuple | torch.Size) else list(shape)
    if logits.second or not all(isinstance(n, int) for n in sizes) or not sizes:
        return NotImplemented
    if sizes[-1] not in (logits.weight.shape[0], -1) or (
        sizes[-1] == -1 and prod(sizes[:-1]) != prod(logits.inputs.shape[:-1])
    ):
        return NotImplemented
    return logits.of(logits.inputs.reshape(*sizes[:-1], logits.inputs.shape[-1]))


def _flattened(logits: PendingLogits, start_dim: int = 0, end_dim: int = -1) -> Any:
    last = end_dim % logits.ndim
    if logits.second or last >= logits.ndim - 1:
        return NotImplemented
    return logits.of(logits.inputs.flatten(start_dim % logits.ndim, last))


def _taken(logits: PendingLogits, index: Any) -> Any:
    """``logits[..., :-1, :]`` and the like: slices of axes before the classes."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if logits.second or not all(part is Ellipsis or isinstance(part, slice) for part in parts):
        return NotImplemented
    if Ellipsis in parts:
        place = parts.index(Ellipsis)
        parts[place : place + 1] = [slice(None)] * (logits.ndim - len(parts) + 1)
    if len(parts) == logits.ndim and parts.pop() != slice(None):
        return NotImplemented
    return logits.of(logits.inputs[tuple(parts)])


def _moved(logits: PendingLogits, source: Any, destination: Any) -> Any:
    if logits.second or not (isinstance(source, int) and isinstance(destination, int)):
        return NotImplemented
    ends = source % logits.ndim, destination % logits.ndim
    return logits.of(logits.inputs, second=True) if ends == (logits.ndim - 1, 1) else NotImplemented


def _transposed(logits: PendingLogits, first: int, other: int) -> Any:
    swapped = {first % logits.ndim, other % logits.ndim}
    if logits.second or logits.ndim != 3 or swapped != {1, 2}:
        return NotImplemented
    return logits.of(logits.inputs, second=True)


def _permuted(logits: PendingLogits, *order: Any) -> Any:
    places = list(order[0]) if len(order) == 1 and isinstance(order[0], list | tuple) else list(order)
    last = logits.ndim - 1
    wanted = [0, last, *range(1, last)]
    if logits.second or [place % logits.ndim for place in places] != wanted:
        return NotImplemented
    return logits.of(logits.inputs, second=True)


def _cast(logits: PendingLogits, *args: Any, **kwargs: Any) -> Any:
    values = (*args, *kwargs.values())
    same = all(isinstance(value, torch.dtype | torch.device) and value in (logits.dtype, logits.device) for value in values)
    return logits if same else NotImplemented


def _float(logits: PendingLogits) -> Any:
    return logits if logits.dtype is torch.float32 else NotImplemented


def _log_softmax(logits: PendingLogits, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    axis = 1 if logits.second else logits.ndim - 1
    if logits.normalized or dim is None or dim % logits.ndim != axis or dtype not in (None, logits.dtype):
        return NotImplemented
    return logits.of(logits.inputs, normalized=True)


def _cross_entropy(
    logits: PendingLogits,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    usual = size_average is None and reduce is None and reduction in ("mean", "sum", "none")
    shape = logits.inputs.shape[:-1]
    is_labels = isinstance(target, Tensor) and target.dtype is torch.int64 and target.shape == shape
    flat_classes = logits.second or logits.ndim <= 2
    if not usual or not is_labels or not flat_classes or logits.normalized:
        return NotImplemented
    return _reduced(logits, target, Options(weight, ignore_index, reduction, label_smoothing))


def _nll_loss(logits: PendingLogits, *arguments: Any, **options: Any) -> Any:
    """Its arguments are the first ones of the cross-entropy."""
    if not logits.normalized:
        return NotImplemented
    return _cross_entropy(logits.of(logits.inputs, normalized=False), *arguments, **options)


class Options(NamedTuple):
    """Of ``functional.cross_entropy``."""

    weight: Tensor | None
    ignored: int
    reduction: str
    smoothing: float


def _reduced(logits: PendingLogits, target: Tensor, options: Options) -> Tensor:
    (inputs, layer, bias), labels = logits.tensors(), target.reshape(-1)
    losses: Tensor = TokenLosses.apply(inputs, layer, bias, labels, options.ignored)[0]
    counted = labels != options.ignored
    known = labels.where(counted, torch.zeros_like(labels))
    weights = counted.to(losses.dtype)
    classes = None if options.weight is None else options.weight.to(losses.dtype)
    if classes is not None:
        weights = weights * classes[known]
    total = losses * weights
    if options.smoothing:
        total = (1 - options.smoothing) * total + options.smoothing * _even(logits, losses, known, classes) * counted
    if options.reduction == "none":
        return total.reshape(target.shape)
    return total.sum() if options.reduction == "sum" else total.sum() / weights.sum()


def _even(logits: PendingLogits, losses: Tensor, labels: Tensor, classes: Tensor | None) -> Tensor:
    """The mean of a token's losses over all labels, weighted by class: logits enter it by their weighted sum alone."""
    inputs, layer, bias = logits.tensors()
    weights = torch.ones_like(bias) if classes is None else classes
    logsumexp = losses + (inputs * layer[labels]).sum(-1) + bias[labels]
    mean: Tensor = (weights.sum() * logsumexp - inputs @ (weights @ layer) - weights @ bias) / len(layer)
    return mean


KEPT: dict[Any, Callable[..., Any]] = {
    Tensor.view: _reshaped,
    Tensor.reshape: _reshaped,
    torch.reshape: _reshaped,
    Tensor.flatten: _flattened,
    torch.flatten: _flattened,
    Tensor.__getitem__: _taken,
    Tensor.movedim: _moved,
    torch.movedim: _moved,
    Tensor.transpose: _transposed,
    torch.transpose: _transposed,
    Tensor.permute: _permuted,
    torch.permute: _permuted,
    Tensor.contiguous: lambda logits: logits,
    Tensor.float: _float,
    Tensor.to: _cast,
    functional.log_softmax: _log_softmax,
    torch.log_softmax: _log_softmax,
    Tensor.log_softmax: _log_softmax,
    functional.cross_entropy: _cross_entropy,
    functional.nll_loss: _nll_loss,
}


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """``functional.linear`` over a large vocabulary as a stand-in; NotImplemented for other layers."""
    if weight.ndim != 2 or input.ndim < 2 or weight.shape[0] < MIN_CLASSES:
        return NotImplemented
    if prod(input.shape[:-1]) * weight.shape[0] < MIN_CHUNKED_LOGITS or not input.is_floating_point():
        return NotImplemented
    tensors = [input, weight] if bias is None else [input, weight, bias]
    alike = all(t.dtype is input.dtype and t.device == input.device for t in tensors)
    if (
        isinstance(input, PendingLogits)
        or not alike
        or torch.is_autocast_enabled(input.device.type)
        or any(_differs_by_sample(t) for t in tensors)
    ):
        return NotImplemented
    return PendingLogits(input, weight, bias)


def _differs_by_sample(tensor: Tensor) -> bool:
    """Return whether ``vmap`` maps over it, on any level of ``torch.func``."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        if torch._C._functorch.is_batchedtensor(tensor):
            return True
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return False


RULES = {functional.linear: linear}
