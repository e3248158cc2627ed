"""The fastest CPU kernels for the matrix products and convolutions of a recorded program; the values are the same.

Measured on an AVX-512 machine from AMD, two threads, float32 (gigaflops): matrix products 220 through MKL, which takes its
AVX2 path on other makers' processors, and 400-500 through oneDNN; 3 x 3 convolutions 440 on contiguous images and 510 on
channels-last ones, the first layer of a network (3 channels) 85 and 450.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from curvscope.operators.products.tracing._partition import tangent_nodes
from curvscope.operators.products.tracing._pointwise import LINEAR_IN_FIRST
from curvscope.operators.products.tracing._tidy import erase_unread

aten = torch.ops.aten

MIN_ONEDNN_MULTIPLICATIONS = 4_000_000
"""Multiplications of a matrix product from which oneDNN's longer call (10 microseconds) pays."""

LEAST_SIDE = 32
"""Narrower products than this are as fast through MKL."""


def choose_kernels(graph: fx.Graph, num_primal: int) -> None:
    """Rewrite what has a faster kernel on this machine: a fixed rule of shapes and processor, so that runs repeat.

    Only what depends on tangents (placeholders after the first ``num_primal``): the network itself is evaluated by the
    kernels that its owner uses, so that rounding leaves each unit on the same side of its kink.
    """
    dependent = tangent_nodes(graph, num_primal)
    calls = [node for node in graph.nodes if node in dependent]
    images_last_channel(graph, calls)
    if onednn_multiplies_faster():
        multiply_with_onednn(graph, calls)
    erase_unread(graph)


# --- matrix products ----------------------------------------------------------------------------------------------------------


@functools.cache
def onednn_multiplies_faster() -> bool:
    """Return whether matrix products use an MKL that leaves this processor's AVX-512 unused, and oneDNN is available."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    has_operation = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return has_operation and "AVX512" in torch.backends.cpu.get_cpu_capability() and not _made_by_intel()


def _made_by_intel() -> bool:
    information = Path("/proc/cpuinfo")
    return not information.exists() or "GenuineIntel" in information.read_text()


def multiply_with_onednn(graph: fx.Graph, calls: Sequence[fx.Node]) -> None:
    """``a @ b`` and ``c + a @ b`` of large float32 matrices as oneDNN calls."""
    for node in calls:
        if node.target is aten.mm.default:
            first, second, *summand = node.args
        elif node.target is aten.addmm.default and not node.kwargs:
            *summand, first, second = node.args
        else:
            continue
        if _worth_onednn(node, first, second):
            with graph.inserting_before(node):
                faster = graph.call_function(onednn_product, (first, second, *summand))
            faster.meta = dict(node.meta)
            node.replace_all_uses_with(faster)


def onednn_product(first: Tensor, second: Tensor, summand: Tensor | None = None) -> Tensor:
    """``first @ second``, plus ``summand``."""
    if summand is None:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(first, second.t(), None, "none", [], "")
    else:
        product = torch.ops.mkldnn._linear_pointwise.binary(first, summand, second.t(), None, "add")
    return product


def _worth_onednn(node: fx.Node, first: Any, second: Any) -> bool:
    if not _float32_on_cpu(node, first, second):
        return False
    (rows, inner), columns = first.meta["shape"], int(second.meta["shape"][1])
    summand = node.args[0]
    alike = node.target is aten.mm.default or (isinstance(summand, fx.Node) and summand.meta.get("shape") == node.meta["shape"])
    return alike and min(rows, inner, columns) >= LEAST_SIDE and rows * inner * columns >= MIN_ONEDNN_MULTIPLICATIONS


# --- convolutions -------------------------------------------------------------------------------------------------------------

ELEMENTWISE = LINEAR_IN_FIRST | {
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.mul.Tensor,
    aten.div.Tensor,
    aten.neg.default,
    aten.mul.Scalar,
    aten.div.Scalar,
    aten.addcmul.default,
}
"""Operations that keep the layout of what they are given, and are slow on arguments of several layouts."""

OTHER_IMAGES = {
    aten.native_batch_norm_backward.default: (0, 1),
    aten.max_pool2d_with_indices_backward.default: (0, 1, 7),
}
"""Places of the images among the arguments of further operations that keep the layout."""


def images_last_channel(graph: fx.Graph, calls: Sequence[fx.Node]) -> None:
    """Give two-dimensional convolutions their images channels-last where images, not weights, are what they move.

    What goes on with their results follows, its coefficients converted once a mini-batch.
    """
    last: set[fx.Node] = set()
    converted: dict[Any, fx.Node] = {}
    for node in calls:
        if node.target is operator.getitem and node.args[0] in last and node.args[1] == 0:
            last.add(node)
        if node.target in CONVOLUTIONS:
            images = CONVOLUTIONS[node.target]
            follows = _moves_images(node)
        else:
            images = _images(node)
            follows = any(node.args[place] in last for place in images)
        if follows:
            last.add(node)
        for place in images:
            tensor: Any = node.args[place]
            if (tensor in last) != follows and (follows or node.target in CONVOLUTIONS):
                node.update_arg(place, _converted(graph, tensor, channels_last if follows else channels_first, converted))


CONVOLUTIONS: dict[Any, tuple[int, ...]] = {aten.convolution.default: (0, 1), aten.convolution_backward.default: (0, 1, 2)}
"""Places of images and weights among the arguments."""


def channels_last(images: Tensor) -> Tensor:
    """The same tensor with its channels next to one another in memory; a copy unless they are already."""
    return images.contiguous(memory_format=torch.channels_last)


def channels_first(images: Tensor) -> Tensor:
    """The same tensor in row-major order; a copy unless it is already."""
    return images.contiguous()


def _moves_images(node: fx.Node) -> bool:
    """Return whether this is a plain convolution of images, and they are larger than its weights."""
    tensors: list[Any] = [node.args[place] for place in CONVOLUTIONS[node.target]]
    transposed, groups = (node.args[6], node.args[8]) if len(tensors) == 2 else (node.args[7], node.args[9])
    if transposed or groups != 1 or not _float32_on_cpu(*tensors) or len(tensors[0].meta["shape"]) != 4:
        return False
    other, weights = (tensors[1], tensors[2]) if len(tensors) == 3 else (node, tensors[1])
    moved: int = prod(tensors[0].meta["shape"]) + prod(other.meta["shape"])
    return moved > int(prod(weights.meta["shape"]))


def _images(node: fx.Node) -> tuple[int, ...]:
    """Places of the images among the arguments of an operation that keeps their layout."""
    if node.target in OTHER_IMAGES:
        return OTHER_IMAGES[node.target]
    shape = node.meta.get("shape", ())
    if node.target not in ELEMENTWISE or len(shape) != 4:
        return ()
    places = enumerate(node.args)
    return tuple(place for place, value in places if isinstance(value, fx.Node) and value.meta.get("shape") == shape)


def _converted(graph: fx.Graph, tensor: fx.Node, layout: Callable[[Tensor], Tensor], converted: dict[Any, fx.Node]) -> fx.Node:
    if (tensor, layout) not in converted:
        with graph.inserting_after(tensor):
            new = graph.call_function(layout, (tensor,))
        new.meta = {**tensor.meta, "stride": layout(torch.empty(tensor.meta["shape"], device="meta")).stride()}
        converted[tensor, layout] = new
    return converted[tensor, layout]


def _float32_on_cpu(*nodes: Any) -> bool:
    return all(
        isinstance(node, fx.Node) and node.meta.get("dtype") is torch.float32 and node.meta["device"].type == "cpu"
        for node in nodes
    )
