"""What a run of the commands holds, its certificate and its page: the layer under the commands."""

from curvscope.runs._certified import failed_claims, keep_certificate
from curvscope.runs._contents import (
    DENSITY,
    MASKS,
    certified_of,
    document,
    measure_overlap,
    solution_of,
)
from curvscope.runs._operators import (
    MATRICES,
    PRECISIONS,
    arithmetic_of,
    matrix_of,
    operator_at_step,
    operator_of_problem,
    recipe_of_problem,
    recipe_of_target,
)

__all__ = [
    "DENSITY",
    "MASKS",
    "MATRICES",
    "PRECISIONS",
    "arithmetic_of",
    "certified_of",
    "document",
    "failed_claims",
    "keep_certificate",
    "matrix_of",
    "measure_overlap",
    "operator_at_step",
    "operator_of_problem",
    "recipe_of_problem",
    "recipe_of_target",
    "solution_of",
]
