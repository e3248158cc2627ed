"""Tall-skinny matrices: where they lie, and the panel algebra on them."""

from curvscope.tall._algebra import gram, multiply, small_dtype, subtract
from curvscope.tall._disk import Mirrored, OnDisk, remove_scratch
from curvscope.tall._host import OnHost
from curvscope.tall._matrix import InMemory, TallMatrix, copy
from curvscope.tall._orthonormalize import Orthonormalized, orthogonality, orthonormalize, polish
from curvscope.tall._panelled import PANEL
from curvscope.tall._small import asymmetry, symmetrized
from curvscope.tall._small_svd import small_svd
from curvscope.tall._triangles import mirrored, rows_at_a_time

__all__ = [
    "PANEL",
    "InMemory",
    "Mirrored",
    "OnDisk",
    "OnHost",
    "Orthonormalized",
    "TallMatrix",
    "asymmetry",
    "copy",
    "gram",
    "mirrored",
    "multiply",
    "orthogonality",
    "orthonormalize",
    "polish",
    "remove_scratch",
    "rows_at_a_time",
    "small_dtype",
    "small_svd",
    "subtract",
    "symmetrized",
]
