"""Sketches: eigenpairs and singular triplets from few rounds of independent products."""

from curvscope.solvers.sketched._adaptive import adaptive_seigh
from curvscope.solvers.sketched._hmt import HMT, hmt
from curvscope.solvers.sketched._nystrom import Nystrom, nystrom
from curvscope.solvers.sketched._recovery import least_squares
from curvscope.solvers.sketched._seigh import Seigh, core_pairs, seigh
from curvscope.solvers.sketched._singlepass import SinglePass, singlepass
from curvscope.solvers.sketched._ssvd import SSVD_METHODS, ssvd

__all__ = [
    "HMT",
    "SSVD_METHODS",
    "Nystrom",
    "Seigh",
    "SinglePass",
    "adaptive_seigh",
    "core_pairs",
    "hmt",
    "least_squares",
    "nystrom",
    "seigh",
    "singlepass",
    "ssvd",
]
