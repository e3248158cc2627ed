"""Cut a recorded linear map in two: what does not depend on the tangents, done once, and what does, done for every vector."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import torch
from torch import Tensor, fx

from curvscope.operators.products.tracing._recording import NotRecordable
from curvscope.operators.products.tracing._tidy import erase_unread


def tangent_nodes(graph: fx.Graph, num_primal: int) -> set[fx.Node]:
    """The nodes that depend on a tangent, that is on a placeholder after the first ``num_primal``; the output is left out."""
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    dependent = set(placeholders[num_primal:])
    for node in graph.nodes:
        if node.op == "call_function" and any(source in dependent for source in node.all_input_nodes):
            dependent.add(node)
    return dependent


def partition(graph: fx.Graph, num_primal: int, num_results: int) -> tuple[fx.Graph, fx.Graph]:
    """``primal(*inputs) -> (residuals, values after the results)`` and ``tangent(*residuals, *tangents) -> results``.

    A residual is a value that the tangent part reads and that does not depend on tangents. Results that do not depend on
    the tangents at all are zero in a linear map; they come out as None.
    """
    dependent = tangent_nodes(graph, num_primal)
    tangents = [node for node in graph.nodes if node.op == "placeholder"][num_primal:]
    output = next(node for node in graph.nodes if node.op == "output")
    kept = _copied_late(graph, dependent)
    residuals = _read_by(graph, dependent | kept)
    results, seen = output.args[0][:num_results], output.args[0][num_results:]
    if any(node in dependent for node in seen):
        raise NotRecordable("the function looks at values that depend on the vectors")
    primal, tangent = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node.op != "output" and node not in dependent and node not in kept:
            copies[node] = primal.node_copy(node, copies.__getitem__)
            copies[node].meta = dict(node.meta)
    primal.output((tuple(copies[node] for node in residuals), tuple(copies[node] for node in seen)))
    copies = {}
    for index, node in enumerate(residuals):
        copies[node] = tangent.placeholder(f"residual_{index}")
        copies[node].meta = dict(node.meta)
    for node in tangents:
        copies[node] = tangent.node_copy(node)
    for node in graph.nodes:
        if (node in dependent or node in kept) and node.op != "placeholder":
            copies[node] = tangent.node_copy(node, copies.__getitem__)
    tangent.output(tuple(copies[node] if node in dependent else None for node in results))
    erase_unread(primal)
    return primal, tangent


def residual_bytes(residuals: tuple[Tensor, ...]) -> int:
    """Memory that residuals hold, each storage counted once."""
    storages = {r.untyped_storage()._cdata: r.untyped_storage().nbytes() for r in residuals}
    return sum(storages.values())


def _read_by(graph: fx.Graph, readers: AbstractSet[fx.Node]) -> list[fx.Node]:
    """Nodes outside ``readers`` whose value a reader takes, in order."""
    found: dict[fx.Node, None] = {}
    for node in graph.nodes:
        if node in readers:
            found.update((source, None) for source in node.all_input_nodes if source not in readers)
    return list(found)


def _copied_late(graph: fx.Graph, dependent: AbstractSet[fx.Node]) -> set[fx.Node]:
    """Copies of broadcast tensors (weights repeated for every vector) and their views: cheaper to make again than to keep."""
    late: dict[fx.Node, None] = {}
    aten = torch.ops.aten
    for node in graph.nodes:
        if node in dependent or node.op != "call_function":
            continue
        source = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        if source is None or any(user not in dependent and user.op != "call_function" for user in node.users):
            continue
        layout = zip(source.meta.get("stride", ()), source.meta.get("shape", ()), strict=True)
        broadcast = any(stride == 0 and length > 1 for stride, length in layout)
        repeats = broadcast and node.target in (aten.clone.default, aten.repeat.default)
        if repeats or (source in late and node.target in VIEWS):
            late[node] = None
    # Only what tangents alone read can move: readers first, as one that stays holds what it reads.
    for node in reversed(list(late)):
        if any(user not in dependent and user not in late for user in node.users):
            del late[node]
    return set(late)


VIEWS = {
    torch.ops.aten.view.default,
    torch.ops.aten._unsafe_view.default,
    torch.ops.aten.reshape.default,
    torch.ops.aten.t.default,
    torch.ops.aten.transpose.int,
    torch.ops.aten.permute.default,
    torch.ops.aten.expand.default,
    torch.ops.aten.unsqueeze.default,
    torch.ops.aten.squeeze.dim,
    torch.ops.aten.squeeze.dims,
    torch.ops.aten.slice.Tensor,
    torch.ops.aten.select.int,
    torch.ops.aten.alias.default,
    torch.ops.aten.detach.default,
}
"""Operations that return a view and cost nothing."""
