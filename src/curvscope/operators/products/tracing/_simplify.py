"""All simplifications of a recorded linear map, in the order in which they help one another."""

from __future__ import annotations

from torch import fx

from curvscope.operators.products.tracing._accumulate import add_within_products
from curvscope.operators.products.tracing._pointwise import collapse
from curvscope.operators.products.tracing._tidy import (
    drop_identities,
    drop_unread_outputs,
    drop_zeros,
    erase_unread,
    hoist_views,
    merge_duplicates,
)


def simplify(graph: fx.Graph, num_primal: int) -> None:
    """Make the part of ``graph`` that depends on tangents (placeholders after the first ``num_primal``) cheaper.

    The results stay the same up to rounding: only exact identities of linear algebra are used.
    """
    erase_unread(graph)
    drop_identities(graph)
    drop_zeros(graph)
    merge_duplicates(graph)
    hoist_views(graph)
    drop_identities(graph)
    collapse(graph, num_primal)
    merge_duplicates(graph)
    add_within_products(graph)
    drop_unread_outputs(graph)
