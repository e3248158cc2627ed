"""Tall-skinny matrices: where they lie, and the panel algebra on them."""

from curvscope.tall.algebra import gram, multiply, subtract
from curvscope.tall.disk import OnDisk
from curvscope.tall.matrix import InMemory, TallMatrix
from curvscope.tall.orthonormalize import Orthonormalized, orthogonality, orthonormalize, polish

__all__ = [
    "InMemory",
    "OnDisk",
    "Orthonormalized",
    "TallMatrix",
    "gram",
    "multiply",
    "orthogonality",
    "orthonormalize",
    "polish",
    "subtract",
]
