"""From operators to eigenpairs."""

from curvscope.solvers.adaptive import adaptive_seigh
from curvscope.solvers.certified import certify
from curvscope.solvers.checks import METHODS
from curvscope.solvers.eigsh import eigsh
from curvscope.solvers.hmt import hmt
from curvscope.solvers.layerwise import eigsh_by_layer
from curvscope.solvers.nystrom import nystrom
from curvscope.solvers.plan import Plan, plan
from curvscope.solvers.posterior import posterior_error, scree
from curvscope.solvers.seigh import seigh
from curvscope.solvers.singlepass import singlepass
from curvscope.solvers.singular import SingularSolution
from curvscope.solvers.sizes import SketchSizes, sizes_for_memory, sizes_for_products, sizes_for_rank
from curvscope.solvers.solution import Cost, Solution, Status
from curvscope.solvers.ssvd import SSVD_METHODS, ssvd
from curvscope.solvers.svds import svds

__all__ = [
    "METHODS",
    "SSVD_METHODS",
    "Cost",
    "Plan",
    "SingularSolution",
    "SketchSizes",
    "Solution",
    "Status",
    "adaptive_seigh",
    "certify",
    "eigsh",
    "eigsh_by_layer",
    "hmt",
    "nystrom",
    "plan",
    "posterior_error",
    "scree",
    "seigh",
    "singlepass",
    "sizes_for_memory",
    "sizes_for_products",
    "sizes_for_rank",
    "ssvd",
    "svds",
]
