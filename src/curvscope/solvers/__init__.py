"""From operators to eigenpairs."""

from curvscope.solvers._eigsh import eigsh, krylov_request
from curvscope.solvers._exact import Units, bytes_needed, dense_matrix
from curvscope.solvers._layerwise import eigsh_by_layer
from curvscope.solvers.certification import certify, posterior_error, scree
from curvscope.solvers.driver import METHODS
from curvscope.solvers.krylov import svds
from curvscope.solvers.planning import Plan, plan
from curvscope.solvers.results import Cost, SingularSolution, Solution, Status
from curvscope.solvers.sizing import SketchSizes, sizes_for_memory, sizes_for_products, sizes_for_rank
from curvscope.solvers.sketched import SSVD_METHODS, adaptive_seigh, hmt, nystrom, seigh, singlepass, ssvd

__all__ = [
    "METHODS",
    "SSVD_METHODS",
    "Cost",
    "Plan",
    "SingularSolution",
    "SketchSizes",
    "Solution",
    "Status",
    "Units",
    "adaptive_seigh",
    "bytes_needed",
    "certify",
    "dense_matrix",
    "eigsh",
    "eigsh_by_layer",
    "hmt",
    "krylov_request",
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
