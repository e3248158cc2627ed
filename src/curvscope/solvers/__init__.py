"""From operators to eigenpairs."""

from curvscope.solvers._columns import measure_columns
from curvscope.solvers._eigsh import eigsh
from curvscope.solvers._exact import Exact, Units, bytes_needed, dense_matrix
from curvscope.solvers._for_overlap import eigsh_for_overlap
from curvscope.solvers._layerwise import eigsh_by_layer
from curvscope.solvers.certification import certify, posterior_error, scree
from curvscope.solvers.driver import METHODS, EigenProblem, Resources
from curvscope.solvers.krylov import Krylov, krylov_options, svds
from curvscope.solvers.planning import Plan, plan
from curvscope.solvers.results import Cost, SingularSolution, Solution, Status
from curvscope.solvers.sizing import SketchSizes, sizes_for_memory, sizes_for_products, sizes_for_rank
from curvscope.solvers.sketched import (
    HMT,
    SSVD_METHODS,
    Nystrom,
    Seigh,
    SinglePass,
    adaptive_seigh,
    hmt,
    nystrom,
    seigh,
    singlepass,
    ssvd,
)

__all__ = [
    "HMT",
    "METHODS",
    "SSVD_METHODS",
    "Cost",
    "EigenProblem",
    "Exact",
    "Krylov",
    "Nystrom",
    "Plan",
    "Resources",
    "Seigh",
    "SinglePass",
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
    "eigsh_for_overlap",
    "hmt",
    "krylov_options",
    "measure_columns",
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
