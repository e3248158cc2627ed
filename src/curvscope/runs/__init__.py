"""What a run of the commands holds, its certificate and its page: the layer under the commands."""

from curvscope.runs._certified import failed_claims, keep_certificate
from curvscope.runs._choices import MATRICES, PRECISIONS, Choices, arithmetic_of
from curvscope.runs._contents import (
    DENSITY,
    LEARNING_CURVE,
    MASKS,
    POPULATION,
    certified_of,
    document,
    mask_of,
    measure_overlap,
    pairs_at,
    pairs_table,
    population_of,
    population_table,
    solution_of,
)
from curvscope.runs._everywhere import built, built_by, built_in_all, is_built_in_all
from curvscope.runs._masks import read_mask
from curvscope.runs._operators import (
    operator_at_step,
    operator_of_problem,
    recipe_of_problem,
    recipe_of_target,
)
from curvscope.runs._weights import read_tensors, read_torch

__all__ = [
    "DENSITY",
    "LEARNING_CURVE",
    "MASKS",
    "MATRICES",
    "POPULATION",
    "PRECISIONS",
    "Choices",
    "arithmetic_of",
    "built",
    "built_by",
    "built_in_all",
    "certified_of",
    "document",
    "failed_claims",
    "is_built_in_all",
    "keep_certificate",
    "mask_of",
    "measure_overlap",
    "operator_at_step",
    "operator_of_problem",
    "pairs_at",
    "pairs_table",
    "population_of",
    "population_table",
    "read_mask",
    "read_tensors",
    "read_torch",
    "recipe_of_problem",
    "recipe_of_target",
    "solution_of",
]
