"""What reverse mode holds constant, held constant by forward mode and by differences too.

The gradient of a loss treats as constant whatever is computed under ``torch.no_grad``, read as ``.data``, or passed through
``.detach()``. Forward mode ignores ``no_grad`` and ``.data`` (pytorch#78961), and a difference of gradients varies these
values along with the parameters. Both would belong to another function than the one whose gradient the user trains with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import getattr_static
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

READS_DATA = getattr_static(torch.Tensor, "data").__get__
STOPS = (READS_DATA, torch.Tensor.detach, torch.detach)
"""Functions whose result reverse mode holds constant, also where gradients are enabled."""

SEES_GRADIENTS = (torch.autograd.grad, torch.autograd.backward, torch.Tensor.backward)
LEAVES_PYTORCH = (
    torch.Tensor.item,
    torch.Tensor.tolist,
    torch.Tensor.numpy,
    torch.Tensor.__float__,
    torch.Tensor.__int__,
    torch.Tensor.__bool__,
    torch.Tensor.__index__,
)
"""Functions whose result is no tensor: a constant to every derivative, but not to a difference."""


class _Mode(TorchFunctionMode):
    """Knows whether the user's code switched gradients off.

    Inside the forward of a custom autograd function they are off too, and what is computed there is no constant: PyTorch
    switches there without calling ``_set_grad_enabled``, which is what a mode gets to see.
    """

    def __init__(self) -> None:
        super().__init__()
        self._switched_off = False

    def _is_constant(self, func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        """Return whether a function is called where the user's code wants no gradients."""
        if func is torch._C._set_grad_enabled:
            self._switched_off = not args[0]
        elif torch.is_grad_enabled():
            self._switched_off = False
        return self._switched_off and func is not torch._C._set_grad_enabled and func not in SEES_GRADIENTS


class ReverseConstants(_Mode):
    """Inside, what reverse mode holds constant has no forward derivative.

    The arguments of functions called under ``no_grad`` lose their tangents, ``.data`` is read as ``.detach()``, and the
    results of ``torch.autograd.grad`` without ``create_graph`` lose theirs. Gradients must be enabled outside.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        constant = self._is_constant(func, args)
        if func == READS_DATA:  # every access makes another method object
            return args[0].detach()
        if func is torch.autograd.grad:
            found = func(*args, **kwargs)
            return found if kwargs.get("create_graph") else _without_tangents(found)
        if not constant:
            return func(*args, **kwargs)
        # An in-place function must get the tensor itself that it writes to.
        kept = 1 if getattr(func, "__name__", "").rstrip("_") != getattr(func, "__name__", "") else 0
        return func(*args[:kept], *_without_tangents(args[kept:]), **_without_tangents(kwargs))


class FrozenConstants:
    """Values that reverse mode holds constant, noted in one evaluation and used again in others, so that differences agree.

    >>> constants, x = FrozenConstants(), torch.tensor(2.0)
    >>> with constants.noted():
    ...     x * x.detach()
    tensor(4.)
    >>> with constants.used():
    ...     3 * x * (3 * x).detach()    # detach() still gives 2
    tensor(12.)
    """

    def __init__(self) -> None:
        self._values: list[Any] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note the values."""
        self._values = []
        with _Constants(self._note):
            yield

    @contextmanager
    def used(self) -> Iterator[None]:
        """Give the noted values, in order, whatever is computed now."""
        remaining = iter(self._values)
        with _Constants(lambda found: _replaced(found, next(remaining, found))):
            yield

    def _note(self, found: Any) -> Any:
        self._values.append(tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), found))
        return found


class _Constants(_Mode):
    """Hands every result that reverse mode holds constant to a function, and goes on with what it returns."""

    def __init__(self, handle: Callable[[Any], Any]) -> None:
        super().__init__()
        self.handle = handle

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        constant = self._is_constant(func, args)
        found = func(*args, **kwargs)
        if func is torch.autograd.grad:
            return found if kwargs.get("create_graph") else self.handle(found)
        if func is functional.embedding and _padding(args, kwargs) is not None:
            return _padded_rows_by(self.handle, found, args, kwargs)
        if func in LEAVES_PYTORCH or func in STOPS:
            return self.handle(found)
        leaves = tree_leaves(found)
        computed = bool(leaves) and all(isinstance(leaf, Tensor) for leaf in leaves)
        if computed and (constant or not any(leaf.is_floating_point() or leaf.is_complex() for leaf in leaves)):
            return self.handle(found)
        return found


def _padding(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """The index of an embedding whose row has no gradient."""
    return args[2] if len(args) > 2 else kwargs.get("padding_idx")


def _padded_rows_by(handle: Callable[[Any], Any], found: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """An embedding whose rows for padding, constants of reverse mode, went through ``handle``."""
    places, weight = (*args, *(kwargs[name] for name in ("input", "weight") if name in kwargs))[:2]
    padded = places == _padding(args, kwargs) % weight.shape[0]
    return torch.where(padded.unsqueeze(-1), handle(found.detach()), found)


def _replaced(found: Any, noted: Any) -> Any:
    """The noted value in the place of the one found; a tensor that was written to keeps its identity."""
    if not isinstance(found, Tensor) or not isinstance(noted, Tensor):
        return noted
    if found.shape != noted.shape or found.dtype != noted.dtype:
        return found  # another branch was taken
    return noted.clone()


def _without_tangents(values: Any) -> Any:
    return tree_map_only(Tensor, lambda tensor: tensor.detach(), values)
