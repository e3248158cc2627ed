"""How much memory a solve needs, how large a sketch and how wide a block should be."""

from curvscope.solvers.sizing._block_width import default_width, expected_products, multiple_of, products_for_many
from curvscope.solvers.sizing._memory import Footprint, check_block_size, fit, fit_sketch, footprint
from curvscope.solvers.sizing._sketch_sizes import (
    SketchSizes,
    sizes_for_memory,
    sizes_for_pairs,
    sizes_for_products,
    sizes_for_rank,
)

__all__ = [
    "Footprint",
    "SketchSizes",
    "check_block_size",
    "default_width",
    "expected_products",
    "fit",
    "fit_sketch",
    "footprint",
    "multiple_of",
    "products_for_many",
    "sizes_for_memory",
    "sizes_for_pairs",
    "sizes_for_products",
    "sizes_for_rank",
]
