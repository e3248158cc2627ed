"""Remove what a recorded linear map carries along for nothing: zeros, copies and views that undo each other."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

ZEROS = {aten.zeros.default, aten.zeros_like.default, aten._efficientzerotensor.default, aten.new_zeros.default}
"""Operations that return zeros."""

ANY_ZERO = {
    aten.mul.Tensor,
    aten.mul.Scalar,
    aten.mm.default,
    aten.bmm.default,
    aten.neg.default,
    aten.view.default,
    aten._unsafe_view.default,
    aten.expand.default,
    aten.t.default,
    aten.transpose.int,
    aten.permute.default,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.sum.dim_IntList,
    aten.alias.default,
    aten.detach.default,
    aten.clone.default,
    aten._to_copy.default,
    torch.ops.prims.mul.default,
}
"""Operations whose result is zero as soon as one tensor argument is."""

SUMS = {aten.add.Tensor, aten.sub.Tensor}
VIEWS_OF_ALL = {aten.view.default, aten._unsafe_view.default, aten.reshape.default}


def erase_unread(graph: fx.Graph) -> None:
    """Calls whose value nobody reads go; a recording has none that do anything else than return a value.

    What ``graph.eliminate_dead_code()`` does, without its checks of the whole graph at every call: a third of a trace's time.
    """
    for node in reversed(graph.nodes):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)


def drop_zeros(graph: fx.Graph) -> None:
    """Sums with a summand that is structurally zero (the derivative of a constant) become the other summand."""
    zero: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        sources = node.all_input_nodes
        if node.target in ZEROS or (node.target in ANY_ZERO and any(source in zero for source in sources)):
            zero.add(node)
        elif node.target is aten.convolution.default:
            image, weight, bias = node.args[:3]
            if (image in zero or weight in zero) and (bias is None or bias in zero):
                zero.add(node)
        elif node.target is operator.getitem and node.args[0].target is aten.convolution_backward.default:
            slope, image, weight = node.args[0].args[:3]
            if any(factor in zero for factor in ((slope, weight), (slope, image), (slope,))[node.args[1]]):
                zero.add(node)
        elif node.target in SUMS and any(source in zero for source in sources):
            first, second = node.args
            if first in zero and second in zero:
                zero.add(node)
            elif second in zero and _same_layout(first, node):
                node.replace_all_uses_with(first)
            elif first in zero and node.target is aten.add.Tensor and not node.kwargs and _same_layout(second, node):
                node.replace_all_uses_with(second)
    erase_unread(graph)


def drop_unread_outputs(graph: fx.Graph) -> None:
    """Calls that are told which of their results to compute (gradients of inputs, of weights) compute those that are read.

    The gradient itself is no part of a product: its weight gradients, a third of a backward pass, are read by nobody.
    """
    for node in graph.nodes:
        names = [argument.name for argument in node.target._schema.arguments] if hasattr(node.target, "_schema") else []
        place = names.index("output_mask") if "output_mask" in names else len(node.args)
        if place < len(node.args) and all(user.target is operator.getitem for user in node.users):
            read = {user.args[1] for user in node.users}
            node.update_arg(place, [wanted and index in read for index, wanted in enumerate(node.args[place])])


def drop_identities(graph: fx.Graph) -> None:
    """Aliases, copies and views that return their argument as it is, and pairs of transpositions that cancel."""
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        if "shape" in node.meta and (same := _identity(node)) is not None and _same_layout(same, node):
            node.replace_all_uses_with(same)
    erase_unread(graph)


def merge_duplicates(graph: fx.Graph) -> None:
    """Calls with the same arguments are made once (functional, deterministic calls only)."""
    seen: dict[Any, fx.Node] = {}
    for node in graph.nodes:
        if node.op != "call_function" or _random(node.target):
            continue
        key = (node.target, frozen(node.args), frozen(node.kwargs))
        if key in seen:
            node.replace_all_uses_with(seen[key])
        else:
            seen[key] = node
    erase_unread(graph)


def hoist_views(graph: fx.Graph) -> None:
    """``view(a) + view(b)`` becomes ``view(a + b)``, so that the sum meets the products it comes from."""
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in SUMS or len(node.args) != 2 or node.kwargs:
            continue
        first, second = node.args
        if not (_whole_view(first) and _whole_view(second)) or first is second:
            continue
        inner = first.args[0], second.args[0]
        if inner[0].meta["shape"] != inner[1].meta["shape"] or not _same_layout(*inner) or not _same_layout(first, node):
            continue
        with graph.inserting_before(node):
            total = graph.call_function(node.target, inner)
            total.meta = dict(inner[0].meta)
            viewed = graph.call_function(aten.view.default, (total, list(node.meta["shape"])))
            viewed.meta = dict(node.meta)
        node.replace_all_uses_with(viewed)
    erase_unread(graph)


def _whole_view(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.target in VIEWS_OF_ALL and len(node.users) == 1


def _same_layout(first: Any, second: fx.Node) -> bool:
    if not isinstance(first, fx.Node):
        return False
    keys = ("shape", "dtype", "stride")
    return all(key in first.meta and first.meta[key] == second.meta[key] for key in keys)


def _identity(node: fx.Node) -> fx.Node | None:
    """Return what ``node`` equals when its layout is that of the returned node."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node):
        return None
    copies = {aten.alias.default, aten.detach.default, aten.clone.default, aten.expand.default, *VIEWS_OF_ALL}
    if node.target in copies:
        return source
    if node.target is aten.copy.default and len(node.args) == 2 and isinstance(node.args[1], fx.Node):
        return node.args[1] if node.args[1].meta.get("device") == node.meta["device"] else None
    if node.target is aten._to_copy.default and "device" in node.kwargs and not node.kwargs.get("pin_memory"):
        return source if node.kwargs["device"] == source.meta.get("device") else None
    twice = node.target is source.target is aten.transpose.int and set(node.args[1:]) == set(source.args[1:])
    if (twice or node.target is source.target is aten.t.default) and isinstance(source.args[0], fx.Node):
        return source.args[0]
    return None


def _random(target: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(target, "tags", ())


def frozen(value: Any) -> Any:
    """Arguments of a call as something that can be looked up; a number is not a boolean of the same value."""
    match value:
        case list() | tuple():
            return tuple(frozen(item) for item in value)
        case dict():
            return tuple((key, frozen(value[key])) for key in sorted(value))
        case bool() | int() | float():
            return type(value), value
    return value
