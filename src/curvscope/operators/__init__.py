"""What is measured: curvature matrices and others, known by their products on blocks."""

from curvscope.operators._algebra import Composable, Square, Submatrix, Sum
from curvscope.operators._composition import Product, identity
from curvscope.operators._conveniences import in_its_form, is_other_form
from curvscope.operators._diagonal import Diagonal
from curvscope.operators._identity import combined, operator_differences, recorded
from curvscope.operators._interop import Dense, as_operator
from curvscope.operators._parameters import ParameterFilter, Parameters, matching, select
from curvscope.operators._rank import RankBound
from curvscope.operators._symmetry import ProductsCheck, raise_if_asymmetric
from curvscope.operators.base import Operator
from curvscope.operators.collective import Grouped
from curvscope.operators.curvature import (
    Check,
    CurvatureOperator,
    EmpiricalFisher,
    GeneralizedGaussNewton,
    GradientSecondMoment,
    Hessian,
    Jacobian,
    MonteCarloFisher,
    Preflight,
    empirical_fisher,
    ggn,
    gradient_second_moment,
    hessian,
    jacobian,
    monte_carlo_fisher,
    preflight,
)
from curvscope.operators.objective import Objective, Part, Unit, Units, units_of
from curvscope.operators.optimizers import (
    GeneralizedPairs,
    Preconditioned,
    StabilityThreshold,
    preconditioned,
    stability_threshold,
)
from curvscope.operators.remote import Recipe, data_parallel, load_target

__all__ = [
    "Check",
    "Composable",
    "CurvatureOperator",
    "Dense",
    "Diagonal",
    "EmpiricalFisher",
    "GeneralizedGaussNewton",
    "GeneralizedPairs",
    "GradientSecondMoment",
    "Grouped",
    "Hessian",
    "Jacobian",
    "MonteCarloFisher",
    "Objective",
    "Operator",
    "ParameterFilter",
    "Parameters",
    "Part",
    "Preconditioned",
    "Preflight",
    "Product",
    "ProductsCheck",
    "RankBound",
    "Recipe",
    "Square",
    "StabilityThreshold",
    "Submatrix",
    "Sum",
    "Unit",
    "Units",
    "as_operator",
    "combined",
    "data_parallel",
    "empirical_fisher",
    "ggn",
    "gradient_second_moment",
    "hessian",
    "identity",
    "in_its_form",
    "is_other_form",
    "jacobian",
    "load_target",
    "matching",
    "monte_carlo_fisher",
    "operator_differences",
    "preconditioned",
    "preflight",
    "raise_if_asymmetric",
    "recorded",
    "select",
    "stability_threshold",
    "units_of",
]
