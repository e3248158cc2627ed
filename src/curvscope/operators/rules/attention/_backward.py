r"""The gradient of attention and its derivative along a direction, tile by tile.

Given :math:`G`, the gradient of the output:

.. math:: dV = P^T G, \quad M = G V^T, \quad \delta = \mathrm{rowsum}(G \odot O), \quad dS = P \odot (M - \delta), \quad
    dQ = s\, dS\, K, \quad dK = s\, dS^T Q

and along a direction, with :math:`\dot S`, :math:`\rho` and :math:`\dot O` as in :mod:`._forward`:

.. math::
    \dot P = P \odot (\dot S - \rho), \quad \dot M = \dot G V^T + G \dot V^T, \quad
    \dot\delta = \mathrm{rowsum}(\dot G \odot O + G \odot \dot O), \\
    \dot{dS} = \dot P \odot (M - \delta) + P \odot (\dot M - \dot\delta), \\
    \dot{dQ} = s (\dot{dS}\, K + dS\, \dot K), \quad \dot{dK} = s (\dot{dS}^T Q + dS^T \dot Q), \quad
    \dot{dV} = \dot P^T G + P^T \dot G

The exponentials of a tile lack the factor of their row. Every term above has it once, so it goes to the thin factor of each
product, or to its result: no pass over the tile is spent on it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from curvscope.operators.rules.attention._forward import (
    batched_product,
    directions,
    left_product,
    put_along,
    right_product,
    rows_along,
    score_tangents,
)
from curvscope.operators.rules.attention._tiles import Tile, Weights, factors

Three = tuple[Tensor, Tensor, Tensor]


class Gradient(NamedTuple):
    """Of the output, with what a gradient needs of the forward pass; heads are (B K, ...).

    Attributes:
        value, out, statistics: see :func:`._forward.attend`.
        slope: G, (T, B K, G, N, V): gradients of the output.
    """

    value: Tensor
    out: Tensor
    statistics: Tensor
    slope: Tensor


def pull_back(weights: Weights, given: Gradient) -> Three:
    """Return dQ (T, B K, G, N, E), dK (T, B K, M, E), dV (T, B K, M, V) for T gradients of the output."""
    value, out, statistics, slope = given
    count = len(slope)
    delta = (slope * out).sum(-1, keepdim=True)
    into_query = slope.new_empty(count, *weights.query.shape)
    into_key, into_value = slope.new_zeros(count, *weights.key.shape), slope.new_zeros(count, *value.shape)
    for tile in weights.tiles():
        exponentials = weights.exponentials(tile, statistics)
        share = factors(weights.rows_of(statistics, tile))
        queries = weights.queries(tile) * share
        for some in directions(count, exponentials):
            slopes = rows_along(slope[some], tile)
            inner = left_product(slopes, value[tile.heads, tile.keys].mT).sub_(rows_along(delta[some], tile))
            inner.mul_(exponentials[:, None])
            found = left_product(inner, weights.keys(tile)).mul_(share[:, None] * weights.scale)
            put_along(into_query, some, tile, found)
            _add(into_key, some, tile, _tall_product(inner, queries))
            _add(into_value, some, tile, _right_product_t(exponentials, slopes * share[:, None]))
    return into_query, into_key, into_value


def pull_back_along(weights: Weights, given: Gradient, along: tuple[Tensor, ...], moved: tuple[Tensor, Tensor]) -> Three:
    """The derivatives of :func:`pull_back` along T directions, for one gradient of the output.

    Args:
        weights: of queries and keys.
        given: T = 1.
        along: directions of query, key, value and slope, each with a leading axis (T, B K, ...).
        moved: what :func:`._forward.attend_along` returns for them.

    Returns:
        The derivatives of dQ, dK and dV, each (T, B K, ...).
    """
    value, out, statistics, slope = given
    query_t, key_t, value_t, slope_t = along
    out_t, rho = moved
    count = len(query_t)
    delta = (slope * out).sum(-1, keepdim=True)
    delta_t = (slope_t * out).add_(slope * out_t).sum(-1, keepdim=True)
    into_query = query_t.new_empty(count, *weights.query.shape)
    into_key, into_value = query_t.new_zeros(count, *weights.key.shape), query_t.new_zeros(count, *value.shape)
    for tile in weights.tiles():
        exponentials = weights.exponentials(tile, statistics)
        share = factors(weights.rows_of(statistics, tile))
        slopes, values = weights.rows_of(slope[0], tile), value[tile.heads, tile.keys]
        inner = torch.bmm(slopes, values.mT).sub_(weights.rows_of(delta[0], tile))
        inside = inner * exponentials
        queries, slopes_shared = weights.queries(tile) * share, slopes * share
        for some in directions(count, exponentials):
            change = score_tangents(weights, tile, query_t[some], key_t[some])
            change.sub_(rows_along(rho[some], tile)).mul_(exponentials[:, None])
            slopes_t = rows_along(slope_t[some], tile)
            mixed = _slope_tangents(slopes, slopes_t, values, value_t[some, tile.heads, tile.keys])
            mixed.sub_(rows_along(delta_t[some], tile)).mul_(exponentials[:, None]).addcmul_(change, inner[:, None])
            _add(into_value, some, tile, _tall_product(change, slopes_shared))
            _add(into_value, some, tile, _right_product_t(exponentials, slopes_t * share[:, None]))
            _add(into_key, some, tile, _tall_product(mixed, queries))
            queries_t = rows_along(query_t[some], tile) * (share[:, None] * weights.scale)
            _add(into_key, some, tile, _right_product_t(inside, queries_t))
            found = left_product(mixed, weights.keys(tile))
            found += right_product(inside, key_t[some, tile.heads, tile.keys])
            put_along(into_query, some, tile, found.mul_(share[:, None] * weights.scale))
    return into_query, into_key, into_value


def _slope_tangents(slopes: Tensor, slopes_t: Tensor, values: Tensor, value_t: Tensor) -> Tensor:
    """The derivative of G V^T for each direction: (heads, T, rows, keys)."""
    values_t = value_t.movedim(0, 1)
    left = torch.cat([slopes_t, slopes[:, None].expand_as(slopes_t)], -1)
    right = torch.cat([values[:, None].expand_as(values_t), values_t], -1)
    return batched_product(left, right.mT)


def _tall_product(tiles: Tensor, right: Tensor) -> Tensor:
    """(heads, T, rows, keys)^T @ (heads, rows, c) to (heads, T, keys, c)."""
    return batched_product(tiles.mT, right[:, None].expand(-1, tiles.shape[1], -1, -1))


def _right_product_t(tile: Tensor, right: Tensor) -> Tensor:
    """(heads, rows, keys)^T @ (heads, T, rows, c) to (heads, T, keys, c), as one product with all directions side by side."""
    wide = right.transpose(1, 2).flatten(2)
    product: Tensor = torch.bmm(tile.mT, wide).unflatten(-1, right.shape[1::2]).transpose(1, 2)
    return product


def _add(target: Tensor, some: slice, tile: Tile, piece: Tensor) -> None:
    """Add (heads, T, keys, c) to (T, B K, M, c)."""
    target[some, tile.heads, tile.keys] += piece.transpose(0, 1)
