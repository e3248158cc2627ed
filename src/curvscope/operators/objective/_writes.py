"""Parameters that a forward pass writes to: such a loss is not the function of its parameters that it seems to be.

A model that clamps, normalises or decays a weight in its forward pass computes with other numbers than it was given, and the
next evaluation begins with other ones. PyTorch's derivatives are those at the numbers that were written, as if these were the
parameters. Such a model is refused by the name of the parameter, before anything is measured, and its own parameters are put
back. Tables of embeddings with ``max_norm`` are the exception: they are written once, in the objective's copy.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils._named_member_accessor import NamedMemberAccessor

from curvscope.errors import WrittenParameter
from curvscope.operators._layouts import equal, parts


@contextmanager
def members_restored(model: nn.Module) -> Iterator[None]:
    """On leaving, every module has the parameter and buffer objects that it had."""
    modules = [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]  # TorchScript has no such tables
    tables: list[MutableMapping[str, Any]] = [members for m in modules for members in (m._parameters, m._buffers)]
    before = [(members, dict(members)) for members in tables]
    try:
        yield
    finally:
        for members, kept in before:
            if any(members.get(name) is not member for name, member in kept.items()):
                members.update(kept)


DEPENDENT: weakref.WeakKeyDictionary[nn.Module, set[str]] = weakref.WeakKeyDictionary()
"""Attributes that have held a tensor that depends on the parameters: under no_grad one cannot tell."""


@contextmanager
def attributes_restored(model: nn.Module) -> Iterator[None]:
    """On leaving, no module keeps a new tensor in a plain attribute with a graph to the parameters.

    What a model keeps for a look at it, such as activations, would hold the graph of a product. What it keeps and computes with
    the next time makes its second evaluation differ from its first, so that it is seen by whoever evaluates it twice. Constants
    stay: a model that makes a table once must find it again.
    """
    before = [(m, dict(vars(m))) for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]
    try:
        yield
    finally:
        for module, kept in before:
            _put_back(module, kept)


def _put_back(module: nn.Module, kept: dict[str, Any]) -> None:
    """Undo what a forward pass did to a module's attributes, where tensors among them depend on the parameters."""
    attributes = vars(module)
    new = [name for name, value in attributes.items() if isinstance(value, Tensor) and kept.get(name) is not value]
    if not new:
        return
    dependent = {name for name in new if _has_graph(attributes[name])} | (DEPENDENT.get(module, set()) & set(new))
    if not dependent:
        return
    DEPENDENT.setdefault(module, set()).update(dependent)
    if len(dependent) == len(new):  # other attributes may say that the tensors are there
        attributes.clear()
        attributes.update(kept)
        return
    for name in dependent:
        attributes.pop(name)
        attributes.update({name: kept[name]} if name in kept else {})


def _has_graph(tensor: Tensor) -> bool:
    return tensor.requires_grad or torch._C._functorch.is_functorch_wrapped_tensor(tensor)


@contextmanager
def own_tensors_restored(model: nn.Module, copies: Mapping[str, Tensor]) -> Iterator[None]:
    """On leaving, the model's own tensors hold what they held, to the bit.

    Args:
        model: whose tensors are looked after.
        copies: of its tensors, by name: no other one is made where these have the same dtype and device.
    """
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    kept = {name: _copy(tensor, copies.get(name)) for name, tensor in own.items()}
    # A copy may be written to as well as the model's own tensor: sums tell which of the two was.
    sums = {name: _sum(tensor) for name, tensor in own.items()}
    try:
        yield
    finally:
        for name, tensor in own.items():
            if _sum(tensor) != sums[name] and not equal(tensor.detach(), kept[name]):
                tensor.data.copy_(kept[name])


def without_assignments(
    function: Callable[[nn.Module, Any], Tensor], names: Sequence[str], passed: Sequence[Tensor]
) -> Callable[[nn.Module, Any], Tensor]:
    """The function, which raises WrittenParameter where a module afterwards has another tensor, or storage, than was passed."""
    before = [tensor.data_ptr() for tensor in passed]

    def watched(model: nn.Module, argument: Any) -> Tensor:
        """Call the function with the model, and look at its parameters."""
        found = function(model, argument)
        accessor = NamedMemberAccessor(model)
        now = [accessor.get_tensor(name) for name in names]
        kept = [own is given and own.data_ptr() == place for own, given, place in zip(now, passed, before, strict=True)]
        refuse_written([name for name, is_kept in zip(names, kept, strict=True) if not is_kept])
        return found

    return watched


def refuse_written(names: Sequence[str]) -> None:
    """Raise WrittenParameter where there are names of parameters that were written to."""
    if names:
        raise WrittenParameter(
            f"the model writes to {quoted(names)} in the forward pass: its loss is no function of what the parameters hold",
            "Write in the training loop, after optimizer.step(); or compute the changed weight as a new tensor in forward(), "
            "as torch.nn.utils.parametrize does",
        )


def quoted(names: Sequence[str], most: int = 4) -> str:
    """The first few names, and how many more there are.

    >>> quoted(["a", "b", "c"], most=2)
    "'a', 'b' and 1 more"
    """
    return ", ".join(repr(name) for name in names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _copy(tensor: Tensor, copy: Tensor | None) -> Tensor:
    if copy is not None and copy.dtype == tensor.dtype and copy.device == tensor.device and equal(copy, tensor.detach()):
        return copy
    return tensor.detach().clone()


def _sum(tensor: Tensor) -> complex:
    """A number that tells whether a tensor was written to, cheap in memory."""
    return sum(
        complex(part.sum(dtype=torch.complex128 if part.is_complex() else torch.float64)) for part in parts(tensor.detach())
    )
