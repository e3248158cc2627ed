"""Attention with first and second derivatives in memory that is linear in the number of tokens."""

from curvscope.operators.rules.attention._batched import directions_batched
from curvscope.operators.rules.attention._call import is_worth_tiles, scaled_dot_product_attention, tiled_attention
from curvscope.operators.rules.attention._tiles import tile_entries

__all__ = ["directions_batched", "is_worth_tiles", "scaled_dot_product_attention", "tile_entries", "tiled_attention"]
