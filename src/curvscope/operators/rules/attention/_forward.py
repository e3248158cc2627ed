r"""Attention and its derivative along a direction, tile by tile.

With scores :math:`S = s Q K^T + mask` and weights :math:`P = \mathrm{softmax}(S)`, row by row:

.. math:: O = P V, \quad \dot S = s (\dot Q K^T + Q \dot K^T), \quad \rho = \mathrm{rowsum}(P \odot \dot S), \quad
    \dot O = (P \odot \dot S) V - \rho \odot O + P \dot V

What is kept of a row are the largest of its scores and the logarithm of the sum of exponentials below it. Not their sum, the
"logsumexp": where a mask adds the most negative number, that sum has lost the logarithm to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from curvscope.operators.rules.attention._tiles import CPU_ENTRIES, Tile, Weights, factors


def attend(weights: Weights, value: Tensor) -> tuple[Tensor, Tensor]:
    """The output and the rows' statistics.

    Args:
        weights: of queries and keys.
        value: (B K, M, V).

    Returns:
        O (B K, G, N, V), and (B K, G, N, 2): the largest score of each row, and the logarithm of the sum of the exponentials of
        the others' distance from it. Both are 0 for a row that sees no key; its output is 0, as PyTorch has it.
    """
    heads, group, rows = weights.query.shape[:3]
    out = value.new_empty(heads, group, rows, value.shape[-1])
    statistics = value.new_empty(heads, group, rows, 2)
    for tile in weights.tiles():
        scores = weights.scores(tile)
        largest = scores.amax(-1, keepdim=True)
        largest.masked_fill_(largest == -float("inf"), 0.0)
        exponentials = scores.sub_(largest).exp_()
        total = exponentials.sum(-1, keepdim=True)
        total.masked_fill_(total == 0, 1.0)
        mixed = torch.bmm(exponentials, value[tile.heads, tile.keys]).div_(total)
        _put(out, tile, mixed)
        _put(statistics, tile, torch.cat([largest, total.log_()], -1))
    return out, statistics


def attend_along(
    weights: Weights, value: Tensor, out: Tensor, statistics: Tensor, along: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """The derivatives of :func:`attend` along directions, which share the weights of a tile.

    Args:
        weights: of queries and keys.
        value: (B K, M, V).
        out: what :func:`attend` returned for them.
        statistics: and of the rows.
        along: directions of query, key and value, each with a leading axis (T, B K, ...).

    Returns:
        The derivatives of O, (T, B K, G, N, V), and rho, (T, B K, G, N, 1).
    """
    query_t, key_t, value_t = along
    keys = side_by_side(weights.key, key_t)
    out_t, rho = query_t.new_empty(len(query_t), *out.shape), query_t.new_empty(len(query_t), *out.shape[:-1], 1)
    for tile in weights.tiles():
        exponentials = weights.exponentials(tile, statistics)
        share = factors(weights.rows_of(statistics, tile))[:, None]
        mixed = weights.rows_of(out, tile)[:, None]
        for some in directions(len(query_t), exponentials):
            weighted = score_tangents(weights, tile, query_t[some], keys[:, some]).mul_(exponentials[:, None])
            slope = weighted.sum(-1, keepdim=True).mul_(share)
            moved = left_product(weighted, value[tile.heads, tile.keys])
            moved += right_product(exponentials, value_t[some, tile.heads, tile.keys])
            put_along(rho, some, tile, slope)
            put_along(out_t, some, tile, moved.mul_(share).addcmul_(slope, mixed, value=-1.0))
    return out_t, rho


def directions(count: int, tile: Tensor) -> Iterator[slice]:
    """Ranges of directions that are taken through a tile together: as many as the caches hold."""
    at_once = max(1, CPU_ENTRIES // max(1, tile.numel())) if tile.device.type == "cpu" else count
    for start in range(0, count, at_once):
        yield slice(start, min(count, start + at_once))


def side_by_side(primal: Tensor, along: Tensor) -> Tensor:
    """(heads, M, c) and directions of it (T, heads, M, c) as (heads, T, M, 2 c)."""
    moved = along.movedim(0, 1)
    return torch.cat([primal[:, None].expand_as(moved), moved], -1)


def score_tangents(weights: Weights, tile: Tile, query_t: Tensor, keys: Tensor) -> Tensor:
    """Directions of queries (T, B K, ...), keys beside their directions: the derivatives of scores, (heads, T, rows, keys)."""
    queries_t = rows_along(query_t, tile).mul(weights.scale)
    # One product of twice the inner width writes the large array once.
    left = torch.cat([queries_t, weights.queries(tile)[:, None].expand_as(queries_t)], -1)
    return batched_product(left, keys[tile.heads, :, tile.keys].mT)


def rows_along(tensor: Tensor, tile: Tile) -> Tensor:
    """Return the part of the rows of a tile, direction by direction: (T, B K, G, N, ...) to (heads, T, rows, ...)."""
    return tensor[:, tile.heads, :, tile.rows].flatten(2, 3).movedim(0, 1)


def batched_product(left: Tensor, right: Tensor) -> Tensor:
    """(heads, T, a, b) @ (heads, T, b, c)."""
    product: Tensor = torch.bmm(left.flatten(0, 1), right.flatten(0, 1)).unflatten(0, left.shape[:2])
    return product


def left_product(tiles: Tensor, right: Tensor) -> Tensor:
    """(heads, T, rows, keys) @ (heads, keys, c), as one product of all directions' rows."""
    product: Tensor = torch.bmm(tiles.flatten(1, 2), right).unflatten(1, tiles.shape[1:3])
    return product


def right_product(tile: Tensor, right: Tensor) -> Tensor:
    """(heads, rows, keys) @ (T, heads, keys, c) to (heads, T, rows, c), as one product with all directions side by side."""
    if len(right) == 1:
        return torch.bmm(tile, right[0])[:, None]
    wide = right.permute(1, 2, 0, 3).flatten(2)
    product: Tensor = torch.bmm(tile, wide).unflatten(-1, (len(right), -1)).transpose(1, 2)
    return product


def put_along(target: Tensor, some: slice, tile: Tile, piece: Tensor) -> None:
    """Write (heads, T, rows, c) into (T, B K, G, N, c)."""
    place = target[some, tile.heads, :, tile.rows]
    place.copy_(piece.movedim(1, 0).view_as(place) if len(place) == 1 else piece.movedim(1, 0).reshape(place.shape))


def _put(target: Tensor, tile: Tile, piece: Tensor) -> None:
    """Write (heads, rows, c) into (B K, G, N, c)."""
    place = target[tile.heads, :, tile.rows]
    place.copy_(piece.view(place.shape))
