"""Record the tensor operations of a function as a graph, below autograd, vmap and forward-mode differentiation."""

from __future__ import annotations

import functools
import operator
import warnings
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from curvscope.operators.products.tracing._tidy import frozen


class NotRecordable(Exception):
    """This function's operations cannot be replayed as a graph; another strategy must be used. Never seen by users."""


@dataclass(frozen=True)
class Recording:
    """The operations that a function ran.

    Attributes:
        graph: its output is the tuple of results, followed by one value for each of ``seen``.
        constants: a module that holds the tensors which the function read and was not given.
        seen: what the function found when it looked at values, as in ``if x.sum() > 0``; the graph stands for the function
            as long as it would find the same.
    """

    graph: fx.Graph
    constants: torch.nn.Module
    seen: tuple[Any, ...]


def record(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> Recording:
    """The operations that ``function(*inputs)`` runs, as a graph of functional ATen calls.

    The function runs once on real tensors and every call that reaches the backend is written down, so whatever PyTorch does
    above (derivatives, batching) is already resolved. In-place operations are written as their functional counterparts.

    Args:
        function: returns a sequence of tensors.
        inputs: tensors; they become the placeholders, in order. Everything else the function reads becomes a constant.

    Raises:
        NotRecordable: operations that cannot be replayed, such as random ones or in-place writes across overlapping views.
    """
    recorder = _Recorder(inputs)
    with jvp_warnings_silenced(), recorder:
        results = function(*inputs)
    nodes = [recorder.node(result) for result in results]
    recorder.graph.output((*nodes, *(node for node, _ in recorder.seen)))
    return Recording(recorder.graph, recorder.constants, tuple(value for _, value in recorder.seen))


@contextmanager
def jvp_warnings_silenced() -> Iterator[None]:
    """PyTorch scripts its own decompositions at the first jvp and warns its user that torch.jit is deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.script.*")
        yield


class DispatchMode(TorchDispatchMode):
    """A mode that PyTorch's compiler does not take part in: keeping it out would import it, 1.2 s, and slow every call."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class _Recorder(DispatchMode):
    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.graph, self.constants = fx.Graph(), torch.nn.Module()
        self.seen: list[tuple[fx.Node, Any]] = []
        self._nodes: dict[int, tuple[weakref.ref[Tensor], fx.Node]] = {}
        self._sharing: defaultdict[int, list[weakref.ref[Tensor]]] = defaultdict(list)
        self._calls: dict[Any, fx.Node] = {}
        for index, tensor in enumerate(inputs):
            self._name(tensor, self.graph.placeholder(f"input_{index}"))

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        writes, random, looks_at_values, shape_depends_on_values = _traits(func)
        if random:
            raise NotRecordable(f"{func} draws random numbers")
        written = _written(func, args, kwargs) if writes else None
        symbols = self._symbol(args), self._symbol(kwargs)
        if func is torch.ops.aten._efficientzerotensor.default:
            # A tensor without memory, which kernels below this point would read as if it had some.
            func = torch.ops.aten.zeros.default
        result = func(*args, **kwargs)
        if written is not None:
            self._write(func, symbols, written)
        elif func in SAME_VALUE:
            self._name(result, symbols[0][0])
        elif tensors_in(result):
            self._bind(result, self._call(func, *symbols))
        if looks_at_values and not isinstance(result, Tensor):
            self.seen.append((self._call(func, *symbols), result))
        if func is torch.ops.aten.index.Tensor:
            # Its shape depends on the values of masks alone, not on those of what is indexed.
            for mask in (index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)):
                self.seen.append((self._call(count_of, (self.node(mask),), {}), count_of(mask)))
        elif shape_depends_on_values:
            shaped = tensors_in(result)
            self.seen += [(self._call(shape_of, (self.node(leaf),), {}), tuple(leaf.shape)) for leaf in shaped]
        return result

    def node(self, tensor: Tensor) -> fx.Node:
        """The node whose value ``tensor`` is; tensors from outside become constants."""
        named, node = self._nodes.get(id(tensor), (None, None))
        if node is None or named is None or named() is not tensor:
            name = f"constant_{len(self.constants._buffers)}"
            self.constants.register_buffer(name, tensor.detach())
            node = self._name(tensor, self.graph.get_attr(name))
        return node

    def _call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
        """A node for a call; one node for all calls of the same, which have the same value."""
        key = func, frozen(args), frozen(kwargs)
        node = self._calls.get(key)
        if node is None:
            node = self._calls[key] = self.graph.call_function(func, args, kwargs)
        return node

    def _symbol(self, value: Any) -> Any:
        """Arguments of a call with nodes in the place of tensors; they nest lists and tuples, and nothing else."""
        if isinstance(value, Tensor):
            return self.node(value)
        if isinstance(value, list | tuple):
            return type(value)([self._symbol(item) for item in value])
        if isinstance(value, dict):
            return {name: self._symbol(item) for name, item in value.items()}
        return value

    def _name(self, tensor: Tensor, node: fx.Node) -> fx.Node:
        if "shape" not in node.meta:
            node.meta.update(
                shape=tensor.shape, dtype=tensor.dtype, device=tensor.device, stride=tensor.stride(), bytes=tensor.nbytes
            )
        named = weakref.ref(tensor)
        self._nodes[id(tensor)] = named, node
        self._sharing[tensor.untyped_storage()._cdata].append(named)
        return node

    def _bind(self, result: Any, node: fx.Node) -> None:
        if isinstance(result, Tensor):
            self._name(result, node)
            return
        for index, item in enumerate(result):
            if isinstance(item, Tensor):
                self._name(item, self._call(operator.getitem, (node, index), {}))

    def _write(self, func: OpOverload, symbols: Any, written: Tensor) -> None:
        """``written`` stands for a new value from here on, and so does every live tensor that shares its memory."""
        node = self._call(_functional(func), *symbols)
        if torch.Tag.inplace_view in func.tags:
            self._name(written, node)
            return
        storage = written.untyped_storage()._cdata
        sharing = {id(tensor): tensor for named in self._sharing.pop(storage, ()) if (tensor := named()) is not None}
        for tensor in sharing.values():
            if _geometry(tensor) == _geometry(written):
                self._name(tensor, node)
            elif _overlap(tensor, written):
                self._name(tensor, self._scattered(func, tensor, written, node))
            else:
                self._sharing[storage].append(weakref.ref(tensor))

    def _scattered(self, func: OpOverload, base: Tensor, written: Tensor, node: fx.Node) -> fx.Node:
        """The value of a tensor of which ``written`` is a view and now has the value ``node``."""
        whole = base.storage_offset() == 0 and base.nbytes == base.untyped_storage().nbytes()
        if not whole or base.dtype != written.dtype:
            raise NotRecordable(f"{func} writes to memory that overlapping views are still read from")
        args = (self.node(base), node, list(written.shape), list(written.stride()), written.storage_offset())
        return self._call(torch.ops.aten.as_strided_scatter.default, args, {})


SAME_VALUE = {torch.ops.aten.alias.default, torch.ops.aten.detach.default}
"""Calls that return what they are given as it is: a sixth of a recording, without a node of their own."""


def tensors_in(result: Any) -> list[Tensor]:
    """The tensors that a call returned."""
    if isinstance(result, list | tuple):
        return [tensor for item in result for tensor in tensors_in(item)]
    return [result] if isinstance(result, Tensor) else []


@functools.cache
def _functional(func: OpOverload) -> OpOverload:
    """The counterpart of an in-place operation that returns its result."""
    if func is torch.ops.aten.transpose_.default:
        return torch.ops.aten.transpose.int
    namespace, name = func._schema.name.split("::")
    found = getattr(getattr(torch.ops.aten, name[:-1], None), func._overloadname, None)
    if namespace != "aten" or not isinstance(found, OpOverload):
        raise NotRecordable(f"{func} writes in place and has no functional counterpart")
    return found


def _overlap(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors in one storage share an entry."""
    if first.dtype != second.dtype:
        return True
    marks = torch.zeros(first.untyped_storage().nbytes() // first.element_size(), dtype=torch.bool, device="cpu")
    marks.as_strided(second.shape, second.stride(), second.storage_offset()).fill_(True)
    return bool(marks.as_strided(first.shape, first.stride(), first.storage_offset()).any())


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """The shape as plain numbers."""
    return tuple(tensor.shape)


def count_of(mask: Tensor) -> int:
    """Return how many entries a mask selects."""
    return int(mask.count_nonzero())


@functools.cache
def _traits(func: OpOverload) -> tuple[bool, bool, bool, bool]:
    """Return whether a call writes in place, draws random numbers, has a number or a shape that depends on values."""
    tags = torch.Tag.nondeterministic_seeded, torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape
    random, value, shape = (tag in func.tags for tag in tags)
    return func._schema.is_mutable, random, value, shape


def _written(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The one tensor that an in-place call writes to."""
    places = [
        kwargs.get(argument.name, args[index] if index < len(args) else None)
        for index, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    if len(places) != 1 or not isinstance(places[0], Tensor) or not func._schema.name.endswith("_"):
        raise NotRecordable(f"{func} writes to several tensors, or to an output that it was given")
    return places[0]


def _geometry(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.storage_offset()
