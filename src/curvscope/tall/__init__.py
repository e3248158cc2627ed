"""Tall-skinny matrices: where they lie, and the panel algebra on them."""

from curvscope.tall.algebra import gram, multiply, small_dtype, subtract
from curvscope.tall.disk import Mirrored, OnDisk
from curvscope.tall.host import OnHost
from curvscope.tall.matrix import InMemory, TallMatrix, copy
from curvscope.tall.orthonormalize import Orthonormalized, orthogonality, orthonormalize, polish

__all__ = [
    "InMemory",
    "Mirrored",
    "OnDisk",
    "OnHost",
    "Orthonormalized",
    "TallMatrix",
    "copy",
    "gram",
    "multiply",
    "orthogonality",
    "orthonormalize",
    "polish",
    "small_dtype",
    "subtract",
]
