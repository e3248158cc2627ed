r"""Bring chains of elementwise operations on tangents to the normal form :math:`\sum_i a_i \odot t_i`.

Second derivatives of activations and losses come out of automatic differentiation as long chains of products and sums.
They are linear in the tangents, so each chain equals a short sum whose coefficients do not depend on the tangents: those
move to the part that runs once per mini-batch, and a vector pays for one multiply-add per term.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from curvscope.operators.products.tracing._partition import tangent_nodes
from curvscope.operators.products.tracing._tidy import erase_unread

aten = torch.ops.aten

MOST_TERMS = 4
"""Longer sums than this are left as they were recorded."""

LINEAR_IN_FIRST = {
    aten.tanh_backward.default,
    aten.sigmoid_backward.default,
    aten.threshold_backward.default,
    aten.gelu_backward.default,
    aten.silu_backward.default,
    aten.leaky_relu_backward.default,
    aten.hardtanh_backward.default,
    aten.softplus_backward.default,
    aten.hardswish_backward.default,
    aten.hardsigmoid_backward.default,
}
"""Elementwise f(t, other, *numbers) = t * f(1, other, *numbers)."""

SLOW_ALONE = LINEAR_IN_FIRST - {
    aten.threshold_backward.default,
    aten.leaky_relu_backward.default,
    aten.hardtanh_backward.default,
}
"""Slower than a product with the coefficient, and the coefficient is no larger than what they keep."""

PRODUCTS = {aten.mm.default, aten.bmm.default}


@dataclass(frozen=True)
class Product:
    """A number times nodes, reciprocals of nodes and calls f(1, ...): one summand of a coefficient."""

    number: float = 1.0
    factors: tuple[tuple[str, fx.Node], ...] = ()

    def __mul__(self, other: Product) -> Product:
        return Product(self.number * other.number, self.factors + other.factors)


Form = dict[fx.Node, tuple[Product, ...]]


def collapse(graph: fx.Graph, num_primal: int) -> None:
    """Rewrite every chain of elementwise operations whose inner values nobody else reads."""
    dependent = tangent_nodes(graph, num_primal)
    terms = {node: found for node in graph.nodes if (found := _terms(node, dependent)) is not None}
    inner = {node for node in terms if _read_once_elementwise(node, terms)}
    forms: dict[fx.Node, Form] = {}
    for node in terms:
        form, any_inner = _form(terms[node], forms, inner)
        forms[node] = form
        if (any_inner or node.target in SLOW_ALONE) and node not in inner and len(form) <= MOST_TERMS:
            with graph.inserting_before(node):
                written = _write(graph, node, form)
            if written is not None:
                for reader in node.users:
                    if node in terms.get(reader, ()):
                        terms[reader][written] = terms[reader].pop(node)
                node.replace_all_uses_with(written)
    erase_unread(graph)


def _form(terms: Form, forms: dict[fx.Node, Form], inner: AbstractSet[fx.Node]) -> tuple[Form, bool]:
    """``terms`` with inner nodes replaced by what they stand for, and whether there were any."""
    form: Form = {}
    for source, scale in terms.items():
        parts = forms[source] if source in inner else {source: (Product(),)}
        for root, coefficient in parts.items():
            scaled = tuple(a * b for a in coefficient for b in scale)
            form[root] = form.get(root, ()) + scaled
    return form, any(source in inner for source in terms)


def _read_once_elementwise(node: fx.Node, terms: dict[fx.Node, Form]) -> bool:
    users = list(node.users)
    if len(users) != 1 or users[0] not in terms or users[0].meta["shape"] != node.meta["shape"]:
        return False
    # A plain sum that is scaled is cheaper summed first: a * (t + u), not a * t + a * u.
    plain = len(terms[node]) > 1 and not any(product.factors for form in terms[node].values() for product in form)
    scaled = any(product.factors for product in terms[users[0]].get(node, ()))
    return not (plain and scaled)


def _terms(node: fx.Node, dependent: AbstractSet[fx.Node]) -> Form | None:
    """The tangent arguments of an elementwise linear call and their coefficients; None for any other call."""
    if node not in dependent or node.op != "call_function" or "shape" not in node.meta:
        return None
    if any(s.meta.get("dtype") != node.meta["dtype"] for s in node.all_input_nodes if s in dependent):
        return None
    args: tuple[Any, ...] = node.args
    target, alpha = node.target, node.kwargs.get("alpha", 1)
    if target in (aten.add.Tensor, aten.sub.Tensor) and args[0] in dependent and args[1] in dependent:
        assert isinstance(alpha, int | float), "ATen's schema: a number"
        second = float(alpha) * (1.0 if target is aten.add.Tensor else -1.0)
        if args[0] is args[1]:
            return {args[0]: (Product(1.0 + second),)}
        return {args[0]: (Product(),), args[1]: (Product(second),)}
    if target is aten.neg.default:
        return {args[0]: (Product(-1.0),)}
    if target in (aten.mul.Tensor, aten.mul.Scalar):
        tangent, other = (args[0], args[1]) if args[0] in dependent else (args[1], args[0])
        return {tangent: (_factor("node", other),)}
    if target in (aten.div.Tensor, aten.div.Scalar):
        return {args[0]: (_factor("inverse", args[1]),)}
    if target in LINEAR_IN_FIRST and args[0] in dependent and isinstance(args[1], fx.Node) and args[1] not in dependent:
        return {args[0]: (Product(1.0, (("call", node),)),)}
    return None


def _factor(kind: str, value: Any) -> Product:
    if isinstance(value, fx.Node):
        return Product(1.0, ((kind, value),))
    return Product(float(value) if kind == "node" else 1.0 / float(value))


def _write(graph: fx.Graph, node: fx.Node, form: Form) -> fx.Node | None:
    """Calls that compute ``form``, broadcast to the shape of ``node``; None when no term has that shape."""
    roots = [root for root in form if root.meta["shape"] == node.meta["shape"]]
    if not roots:
        return None
    scales = {root: _coefficient(graph, form[root]) for root in form}
    # Matrix products with coefficient 1 go last: the sum is then accumulated by the product itself.
    first = min(roots, key=lambda root: root.target in PRODUCTS and scales[root] == 1.0)
    rest = sorted((root for root in form if root is not first), key=lambda root: root.target in PRODUCTS)
    total = first if scales[first] == 1.0 else graph.call_function(aten.mul.Tensor, (first, scales[first]))
    for root in rest:
        scale = scales[root]
        if isinstance(scale, fx.Node):
            new = graph.call_function(aten.addcmul.default, (total, root, scale))
        else:
            new = graph.call_function(aten.add.Tensor, (total, root), {} if scale == 1.0 else {"alpha": scale})
        total.meta = total.meta or dict(node.meta)
        total = new
    total.meta = total.meta or dict(node.meta)
    return total


def _coefficient(graph: fx.Graph, products: tuple[Product, ...]) -> fx.Node | float:
    values = [_product(graph, product) for product in products]
    numbers = sum(value for value in values if not isinstance(value, fx.Node))
    total: Any = None
    for value in values:
        if isinstance(value, fx.Node):
            total = value if total is None else graph.call_function(aten.add.Tensor, (total, value))
    if total is None:
        return float(numbers)
    return graph.call_function(aten.add.Tensor, (total, numbers)) if numbers else total


def _product(graph: fx.Graph, product: Product) -> fx.Node | float:
    total: Any = None
    for kind, node in product.factors:
        factor = _evaluate(graph, kind, node)
        total = factor if total is None else graph.call_function(aten.mul.Tensor, (total, factor))
    if total is None:
        return product.number
    return total if product.number == 1.0 else graph.call_function(aten.mul.Tensor, (total, product.number))


def _evaluate(graph: fx.Graph, kind: str, node: fx.Node) -> fx.Node:
    if kind == "node":
        return node
    if kind == "inverse":
        return graph.call_function(aten.reciprocal.default, (node,))
    ones = graph.call_function(aten.ones_like.default, (node.args[1],))
    assert callable(node.target), "a call, see LINEAR_IN_FIRST"
    return graph.call_function(node.target, (ones, *node.args[1:]), node.kwargs)
