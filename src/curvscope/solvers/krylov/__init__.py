"""Block Krylov: bases that grow, thick restarts, eigenpairs and singular triplets."""

from curvscope.solvers.krylov._basis import KrylovOptions
from curvscope.solvers.krylov._eigen_basis import Expansion
from curvscope.solvers.krylov._iterate import Loop, block_krylov, grow, iterate
from curvscope.solvers.krylov._method import Krylov, krylov_options
from curvscope.solvers.krylov._svds import svds

__all__ = [
    "Expansion",
    "Krylov",
    "KrylovOptions",
    "Loop",
    "block_krylov",
    "grow",
    "iterate",
    "krylov_options",
    "svds",
]
