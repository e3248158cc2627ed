"""What is measured: curvature matrices and others, known by their products on blocks."""

from curvscope.operators.algebra import Composable
from curvscope.operators.base import Operator
from curvscope.operators.composition import Product
from curvscope.operators.curvature import CurvatureOperator, GeneralizedGaussNewton, Hessian, ggn, hessian
from curvscope.operators.fisher import (
    EmpiricalFisher,
    GradientSecondMoment,
    MonteCarloFisher,
    empirical_fisher,
    gradient_second_moment,
    monte_carlo_fisher,
)
from curvscope.operators.interop import Dense, as_operator
from curvscope.operators.jacobian import Jacobian, jacobian
from curvscope.operators.objective import Objective
from curvscope.operators.parameters import Parameters
from curvscope.operators.preflight import Check, Preflight, preflight
from curvscope.operators.recipe import Recipe
from curvscope.operators.sharded import data_parallel
from curvscope.operators.target import load_target

__all__ = [
    "Check",
    "Composable",
    "CurvatureOperator",
    "Dense",
    "EmpiricalFisher",
    "GeneralizedGaussNewton",
    "GradientSecondMoment",
    "Hessian",
    "Jacobian",
    "MonteCarloFisher",
    "Objective",
    "Operator",
    "Parameters",
    "Preflight",
    "Product",
    "Recipe",
    "as_operator",
    "data_parallel",
    "empirical_fisher",
    "ggn",
    "gradient_second_moment",
    "hessian",
    "jacobian",
    "load_target",
    "monte_carlo_fisher",
    "preflight",
]
