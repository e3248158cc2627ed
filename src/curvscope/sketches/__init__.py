"""Test matrices: pure functions of (kind, seed, role, row, column)."""

from curvscope.sketches._streams import TILE_ROWS, Streams
from curvscope.sketches._test_matrix import KINDS, SketchKind, TestMatrix, check_kind
from curvscope.sketches._transforms import inverse_unitary, unitary

__all__ = [
    "KINDS",
    "TILE_ROWS",
    "SketchKind",
    "Streams",
    "TestMatrix",
    "check_kind",
    "inverse_unitary",
    "unitary",
]
