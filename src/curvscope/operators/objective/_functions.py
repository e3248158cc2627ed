"""Any function of a pytree of tensors as an objective: log densities, inputs, activations, networks written as functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import KeyPath, tree_flatten_with_path, tree_unflatten

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators.objective._batch_loss import Values
from curvscope.operators.objective._batches import Batch, as_given
from curvscope.operators.objective._loss_argument import Loss
from curvscope.operators.objective._objective import Objective
from curvscope.operators.objective._options import WeightOptions
from curvscope.operators.rules import materialized

ONLY_NAME = "parameters"
"""Name of a tensor that is no part of a container."""


class TensorTree(nn.Module):
    """The tensors of a pytree under the names of their paths: what varies, as a model without a forward pass.

    Floating-point tensors are parameters, whatever their ``requires_grad`` says; they share memory with the tensors given, so
    that changes in place are seen by :meth:`.Objective.move`. Other tensors are buffers, other leaves constants.

    Raises:
        InvalidType: no floating-point tensor in it, or a NumPy array. InvalidArgument: two paths with one name.

    >>> tree = TensorTree({"scale": torch.ones(()), "layers": [torch.ones(2), torch.ones(3)]})
    >>> [name for name, _ in tree.named_parameters()]
    ['scale', 'layers.0', 'layers.1']
    """

    def __init__(self, tree: Any) -> None:
        super().__init__()
        paths, self.structure = tree_flatten_with_path(tree)
        self.constants = [leaf for _, leaf in paths]
        self.names = [path_name(path) for path, _ in paths]
        if twice := {name for name in self.names if self.names.count(name) > 1}:
            raise InvalidArgument(f"two tensors have the name {min(twice)!r}: choose keys whose paths differ, without dots")
        if any(isinstance(leaf, np.ndarray) for leaf in self.constants):
            raise InvalidType("the parameters hold a NumPy array: make it a tensor, with torch.as_tensor")
        tensors = {name: leaf for name, leaf in zip(self.names, self.constants, strict=True) if isinstance(leaf, Tensor)}
        self.varying = {name: nn.Parameter(leaf.detach()) for name, leaf in tensors.items() if leaf.is_floating_point()}
        self.fixed = {name: leaf for name, leaf in tensors.items() if name not in self.varying}
        if not self.varying:
            raise InvalidType(
                f"no floating-point tensor in parameters that are a {type(tree).__name__}: pass a tensor, or nested dicts, "
                "lists or tuples of tensors, as in cs.hessian(function, parameters) with function(parameters) -> scalar"
            )

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """The floating-point tensors by path."""
        yield from self.varying.items()

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """The other tensors by path."""
        yield from self.fixed.items()

    def filled(self, tensors: dict[str, Tensor]) -> Any:
        """The tree with these tensors in their places."""
        leaves = [tensors.get(name, leaf) for name, leaf in zip(self.names, self.constants, strict=True)]
        return tree_unflatten(leaves, self.structure)


def path_name(path: KeyPath) -> str:
    """Keys, indices and attributes of a path, joined by dots.

    >>> [path_name(path) for path, _ in tree_flatten_with_path({"a": [1, {"b": 2}]})[0]]
    ['a.0', 'a.1.b']
    """
    found = [next(str(getattr(key, kind)) for kind in ("key", "idx", "name") if hasattr(key, kind)) for key in path]
    return ".".join(found) or ONLY_NAME


class FunctionObjective(Objective):
    """A function of a pytree of tensors, on data or alone, as an objective.

    Args:
        function: ``function(parameters) -> scalar``; with data ``function(parameters, batch) -> mean over the batch``; with a
            criterion ``function(parameters, x) -> outputs`` for data that yields (x, y).
        parameters: a tensor, or nested dictionaries, lists and tuples of tensors.
        data: None, or batches as for :class:`.Objective`.
        criterion: ``(outputs, target) -> scalar``, where the matrix needs to know the outputs.
        options: see :class:`.WeightOptions`; ``params`` selects by the names of the paths, such as ``"layers.0.*"``.

    Limits: what else the function uses (tensors, modules) is not copied: do not change it while products are made, and put
    modules in evaluation mode yourself.

    >>> objective = FunctionObjective(lambda p: (p["a"] * p["b"]).sum(), {"a": torch.ones(2), "b": torch.ones(2)})
    >>> objective.mean_loss, objective.parameters.names
    (2.0, ('a', 'b'))
    """

    def __init__(
        self,
        function: Callable[..., Any],
        parameters: Any,
        data: Iterable[Batch] | None = None,
        *,
        criterion: Loss | None = None,
        **options: Unpack[WeightOptions],
    ) -> None:
        if criterion is not None and not callable(criterion):
            raise InvalidType(f"criterion is {criterion!r}, expected a function (outputs, target) -> scalar")
        if criterion is not None and data is None:
            raise InvalidArgument("a criterion needs data that yields (x, y): pass data, or a function that returns a scalar")
        self.function, self.takes_batches = function, data is not None
        self.given_criterion = criterion is not None
        tree = TensorTree(parameters)
        batches = [torch.zeros(1, device="cpu")] if data is None else data
        super().__init__(tree, criterion if criterion is not None else function, batches, **options)

    def _call(self, values: Values, function: Callable[..., Any] | None, argument: Any) -> Any:
        assert isinstance(self.model, TensorTree), "made in __init__"
        tree = self.model.filled({**self._constants, **dict(zip(self.parameters.names, values, strict=True))})
        with self.evaluation.rules():
            found = self.function(tree, as_given(argument)) if self.takes_batches else self.function(tree)
        return found if self.evaluation.is_inside else materialized(found)

    def _understood(self, loss: Loss) -> tuple[Callable[..., Any], bool]:
        if not self.given_criterion:
            assert callable(loss), "a function of parameters"
            return loss, False
        return super()._understood(loss)[0], True


def is_function(model: object) -> bool:
    """Return whether what was passed as a model is a function of parameters."""
    return callable(model) and not isinstance(model, nn.Module | type)
