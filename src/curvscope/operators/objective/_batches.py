"""Mini-batches of any form: tensors, nested tuples and dictionaries, and what their loss terms are."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import register_pytree_node, tree_leaves, tree_map_only

from curvscope.errors import InvalidArgument
from curvscope.operators._layouts import is_plain, parts, rows, shape_of
from curvscope.operators.objective._tables import Table, is_table

Batch = Any

CRITERIA: dict[Callable[..., Tensor], type[nn.Module]] = {
    functional.cross_entropy: nn.CrossEntropyLoss,
    functional.mse_loss: nn.MSELoss,
    functional.binary_cross_entropy_with_logits: nn.BCEWithLogitsLoss,
}
"""Functions that users pass for their modules."""

ELEMENTWISE = (
    nn.MSELoss,
    nn.L1Loss,
    nn.SmoothL1Loss,
    nn.HuberLoss,
    nn.BCELoss,
    nn.BCEWithLogitsLoss,
    nn.PoissonNLLLoss,
    nn.SoftMarginLoss,
)
"""Criteria whose mean goes over every entry of the target."""


class Fields(dict[str, Any]):
    """A dictionary whose values are attributes too: a mapping of another class (``BatchEncoding``), or what a dataclass holds.

    Attributes:
        _dataclass: the class, None for a mapping; hidden, as values may have any name.
    """

    _dataclass: type | None

    def __init__(self, values: dict[str, Any], dataclass: type | None = None) -> None:
        super().__init__(values)
        self.__dict__["_dataclass"] = dataclass

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"{name!r}: batches that are mappings are passed on with what they hold, {list(self)}, and nothing else"
            ) from None


register_pytree_node(
    Fields,
    lambda batch: (list(batch.values()), (batch._dataclass, *batch)),
    lambda values, known: Fields(dict(zip(known[1:], values, strict=True)), known[0]),
)


def plain(batch: Batch) -> Batch:
    """The batch with every mapping (Hugging Face's ``BatchEncoding`` too) and every dataclass as a dictionary."""
    match batch:
        case Mapping():
            values = {key: plain(value) for key, value in batch.items()}
            exact = type(batch) in (dict, OrderedDict, defaultdict)
            return values if exact else Fields(values, batch._dataclass if isinstance(batch, Fields) else None)
        case _ if is_dataclass(batch) and not isinstance(batch, type):
            return Fields({field.name: plain(getattr(batch, field.name)) for field in fields(batch)}, type(batch))
        case tuple() if hasattr(batch, "_fields"):
            return type(batch)(*(plain(value) for value in batch))
        case tuple() | list():
            return type(batch)(plain(value) for value in batch)
    return batch


def as_given(batch: Batch) -> Batch:
    """Return what :func:`plain` gave, with dataclasses as they were: what a model or a loss is called with."""
    match batch:
        case Fields() if batch._dataclass is not None:
            made: Any = object.__new__(batch._dataclass)
            for name, value in batch.items():
                object.__setattr__(made, name, as_given(value))  # frozen ones too
            return made
        case dict():
            values = {key: as_given(value) for key, value in batch.items()}
            return Fields(values) if isinstance(batch, Fields) else values
        case tuple() if hasattr(batch, "_fields"):
            return type(batch)(*(as_given(value) for value in batch))
        case tuple() | list():
            return type(batch)(as_given(value) for value in batch)
    return batch


def move(batch: Batch, device: torch.device, dtype: torch.dtype) -> Batch:
    """The batch on a device; floating-point tensors also in the dtype, those that require grad as leaves that do."""

    def moved(tensor: Tensor) -> Tensor:
        """Copy a tensor, which then requires grad where the original does: the loss differentiates with respect to it."""
        return placed(tensor, device, dtype).requires_grad_(tensor.requires_grad)

    return tree_map_only(Tensor, moved, plain(batch))


def placed(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """On a device, and in a floating-point dtype where it has one; complex numbers in the dtype that has it as parts.

    >>> placed(torch.ones(1, dtype=torch.complex128), torch.device("cpu"), torch.float32).dtype
    torch.complex64
    """
    if tensor.is_complex():
        dtype = dtype.to_complex() if torch.finfo(dtype).bits >= 32 else torch.complex64
    elif not tensor.is_floating_point():
        dtype = tensor.dtype
    # What was made under inference_mode has no derivatives, its copy does.
    return (tensor.clone() if tensor.is_inference() else tensor).detach().to(device, dtype)


def tensors_of(batch: Batch) -> list[Tensor]:
    """All tensors of a batch, in order."""
    return [leaf for leaf in tree_leaves(plain(batch)) if isinstance(leaf, Tensor)]


def length(batch: Batch) -> int:
    """Number of samples: the length of the first tensor with an axis.

    Raises:
        InvalidArgument: no tensor.
    """
    tensors = tensors_of(batch)
    if not tensors:
        raise InvalidArgument(
            f"no tensor is seen in a batch that is a {type(batch).__name__}: yield tensors, or tuples, lists, mappings "
            "or dataclasses of them (vars(batch) is a mapping)"
        )
    return next((int(tensor.shape[0]) for tensor in tensors if tensor.ndim), 1)


def split(batch: Batch, most: int | None) -> Iterator[Batch]:
    """The batch in pieces of at most ``most`` samples; tensors of another length go into every piece whole.

    >>> [x.tolist() for x, _ in split((torch.arange(5), torch.tensor(1.0)), 2)]
    [[0, 1], [2, 3], [4]]
    """
    samples = length(batch)
    if most is None or samples <= most:
        yield batch
        return
    for start in range(0, samples, most):

        def cut(tensor: Tensor, start: int = start) -> Tensor:
            """This piece of a tensor that has a row for every sample."""
            if not tensor.ndim or int(tensor.shape[0]) != samples:
                return tensor
            return rows(tensor.detach(), start, start + most).requires_grad_(tensor.requires_grad)

        yield tree_map_only(Tensor, cut, plain(batch))


def few_samples(batch: Batch, most: int = 4) -> Batch | None:
    """At most so many samples from all over a batch; None where its tensors do not all have a row for every sample.

    >>> few_samples((torch.arange(9), torch.arange(9)))[0].tolist(), few_samples((torch.arange(9), torch.arange(5)))
    ([0, 3, 5, 8], None)
    """
    tensors = [tensor for tensor in tensors_of(batch) if tensor.ndim]
    lengths = {tensor.shape[0] for tensor in tensors}
    if len(lengths) != 1 or any(tensor.layout != torch.strided for tensor in tensors):
        return None
    samples = lengths.pop()
    if samples <= most:
        return batch
    rows = torch.linspace(0, samples - 1, most, device="cpu").round().long()
    return tree_map_only(Tensor, lambda tensor: tensor[rows.to(tensor.device)] if tensor.ndim else tensor, plain(batch))


def as_batches(data: Any, *, pairs: bool) -> Any:
    """Data as a list of batches where it is one batch, (x, y) for a criterion or a mapping of tensors, or a table of rows.

    >>> batch = (torch.zeros(2, 3), torch.zeros(2))
    >>> len(as_batches(batch, pairs=True)), len(as_batches({"input_ids": batch[1]}, pairs=False))
    (1, 1)
    """
    if is_table(data):
        return Table(data)
    if pairs and isinstance(data, tuple | list) and len(data) == 2:
        x, y = data
        if isinstance(y, Tensor) and (isinstance(x, Tensor) or (isinstance(x, Mapping) and tensors_of(x))):
            return [data if isinstance(data, tuple) else tuple(data)]
    if isinstance(data, Mapping) and any(isinstance(value, Tensor) for value in data.values()):
        return [data]
    return data


def is_pair(batch: Batch) -> bool:
    """Return whether a batch is (x, y)."""
    return isinstance(batch, Sequence) and len(batch) == 2


def check_batch(batch: Batch, number: int, *, pairs: bool) -> None:
    """Raise InvalidArgument for NumPy arrays, and unless a batch is (x, y) where ``pairs`` are needed."""
    if any(isinstance(leaf, np.ndarray) for leaf in tree_leaves(plain(batch))):
        raise InvalidArgument(f"batch {number} holds a NumPy array: make it a tensor, with torch.as_tensor")
    if pairs and not is_pair(batch):
        raise InvalidArgument(
            f"batch {number} is a {type(batch).__name__}, but a criterion needs pairs (x, y): "
            "pass a function loss(model, batch) for other batches, or loss='model' for Hugging Face models"
        )


def criterion_terms(criterion: Callable[..., Tensor], batch: Batch) -> float:
    """Return what the mean of a criterion divides by, for a batch (x, y)."""
    target = batch[1]
    if isinstance(criterion, nn.CrossEntropyLoss | nn.NLLLoss):
        if not isinstance(target, Tensor):
            kind = type(target).__name__
            raise InvalidArgument(f"the target of a batch is a {kind}, {type(criterion).__name__} needs a tensor of classes")
        if target.is_floating_point():
            return float(target.numel() / (target.shape[1] if target.ndim > 1 else target.shape[0]))
        counted = target[target != criterion.ignore_index]
        if criterion.weight is None:
            return float(counted.numel())
        return float(criterion.weight.detach()[counted.to(criterion.weight.device)].sum())
    if isinstance(criterion, ELEMENTWISE) and isinstance(target, Tensor):
        return float(target.numel())
    return float(length(batch))


def describe(leaves: Iterable[Any]) -> tuple[Any, ...]:
    """Shapes and dtypes of tensors and the other leaves as they are: what a traced program may depend on."""
    return tuple(_described(leaf) if isinstance(leaf, Tensor) else repr(leaf) for leaf in leaves)


def _described(tensor: Tensor) -> tuple[Any, ...]:
    if is_plain(tensor):
        return tuple(tensor.shape), tensor.dtype, tensor.stride(), tensor.requires_grad
    return str(tensor.layout), tensor.dtype, shape_of(tensor), tuple(tuple(part.shape) for part in parts(tensor))
