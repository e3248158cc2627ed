"""Sketches: eigenpairs and singular triplets from few rounds of independent products."""

from curvscope.solvers.sketched._adaptive import adaptive_seigh
from curvscope.solvers.sketched._hmt import hmt
from curvscope.solvers.sketched._nystrom import nystrom
from curvscope.solvers.sketched._recovery import least_squares
from curvscope.solvers.sketched._seigh import core_pairs, seigh
from curvscope.solvers.sketched._singlepass import singlepass
from curvscope.solvers.sketched._ssvd import SSVD_METHODS, ssvd

__all__ = [
    "SSVD_METHODS",
    "adaptive_seigh",
    "core_pairs",
    "hmt",
    "least_squares",
    "nystrom",
    "seigh",
    "singlepass",
    "ssvd",
]
