"""Let matrix products add to what is there, and elementwise operations reuse the memory of what nobody reads again."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from curvscope.operators.products.tracing._partition import VIEWS
from curvscope.operators.products.tracing._tidy import erase_unread

aten = torch.ops.aten

ADDING = {aten.mm.default: aten.addmm.default, aten.bmm.default: aten.baddbmm.default}
IN_PLACE = {
    aten.add.Tensor: aten.add_.Tensor,
    aten.sub.Tensor: aten.sub_.Tensor,
    aten.mul.Tensor: aten.mul_.Tensor,
    aten.mul.Scalar: aten.mul_.Scalar,
    aten.div.Tensor: aten.div_.Tensor,
    aten.div.Scalar: aten.div_.Scalar,
    aten.neg.default: aten.neg_.default,
    aten.addcmul.default: aten.addcmul_.default,
    aten.addmm.default: aten.addmm_.default,
    aten.baddbmm.default: aten.baddbmm_.default,
}


def add_within_products(graph: fx.Graph) -> None:
    """``x + a @ b`` becomes one call that accumulates, where the product is read by this sum alone."""
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target is not aten.add.Tensor or node.kwargs or len(node.args) != 2:
            continue
        for summand, product in (node.args, node.args[::-1]):
            if not (isinstance(summand, fx.Node) and isinstance(product, fx.Node) and "shape" in summand.meta):
                continue
            if product.target in ADDING and len(product.users) == 1 and _adds_alike(summand, product, node):
                with graph.inserting_before(node):
                    fused = graph.call_function(ADDING[product.target], (summand, *product.args))
                fused.meta = dict(node.meta)
                node.replace_all_uses_with(fused)
                break
    erase_unread(graph)


def _adds_alike(summand: fx.Node, product: fx.Node, total: fx.Node) -> bool:
    keys = ("shape", "dtype")
    return all(summand.meta[key] == product.meta.get(key) == total.meta[key] for key in keys)


def reuse_memory(graph: fx.Graph) -> None:
    """Write in place where the first argument is a fresh value that nobody else reads.

    For the tangent part alone, and as the last step: its placeholders (residuals, the caller's tangents) are never
    written to, nor is anything that its results share memory with.
    """
    for node in list(graph.nodes):
        if node.op != "call_function" or "shape" not in node.meta or node.target not in IN_PLACE:
            continue
        args = _fresh_first(node)
        if args is not None:
            node.target, node.args = IN_PLACE[node.target], args


def allow_any_layout(graph: fx.Graph) -> None:
    """Views that were recorded for one memory layout copy where the tangents, or rewritten sums, have another."""
    for node in graph.nodes:
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default


def _fresh_first(node: fx.Node) -> tuple[Any, ...] | None:
    """The arguments with a first one that may be overwritten; None when there is none."""
    args = node.args
    if _may_overwrite(args[0], node):
        return args
    commutes = node.target in (aten.add.Tensor, aten.mul.Tensor) and not node.kwargs
    if commutes and _may_overwrite(args[1], node):
        return (args[1], args[0], *args[2:])
    return None


def _may_overwrite(target: Any, node: fx.Node) -> bool:
    if not isinstance(target, fx.Node) or target.meta.get("shape") != node.meta["shape"]:
        return False
    if target.meta["dtype"] != node.meta["dtype"] or target in node.args[2:] or node.args.count(target) != 1:
        return False
    strides = target.meta["stride"]
    if any(stride == 0 and length > 1 for stride, length in zip(strides, target.meta["shape"], strict=True)):
        return False
    while True:
        if target.op != "call_function" or len(target.users) != 1 or "shape" not in target.meta:
            return False
        if target.target in IN_PLACE.values() or target.target in OWN_MEMORY:
            return True
        if target.target not in VIEWS:
            return False
        target = target.args[0]


OWN_MEMORY = {
    *IN_PLACE,
    aten.mm.default,
    aten.bmm.default,
    aten.convolution.default,
    aten.tanh_backward.default,
    aten.sigmoid_backward.default,
    aten.threshold_backward.default,
    aten.gelu_backward.default,
    aten.max_pool2d_with_indices_backward.default,
    aten.gather.default,
    aten.embedding.default,
    aten.index_select.default,
}
"""Operations whose result is memory of its own."""
