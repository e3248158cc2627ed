"""Hessian, Gauss-Newton, Fisher matrices and Jacobian of an objective, as operators."""

from curvscope.operators.curvature._curvature import (
    CurvatureOperator,
    GeneralizedGaussNewton,
    Hessian,
    MatrixOptions,
    check_weights,
    ggn,
    hessian,
)
from curvscope.operators.curvature._fisher import (
    EmpiricalFisher,
    GradientSecondMoment,
    MonteCarloFisher,
    empirical_fisher,
    gradient_second_moment,
    monte_carlo_fisher,
)
from curvscope.operators.curvature._jacobian import Jacobian, jacobian
from curvscope.operators.curvature._preflight import Check, Preflight, preflight

__all__ = [
    "Check",
    "CurvatureOperator",
    "EmpiricalFisher",
    "GeneralizedGaussNewton",
    "GradientSecondMoment",
    "Hessian",
    "Jacobian",
    "MatrixOptions",
    "MonteCarloFisher",
    "Preflight",
    "check_weights",
    "empirical_fisher",
    "ggn",
    "gradient_second_moment",
    "hessian",
    "jacobian",
    "monte_carlo_fisher",
    "preflight",
]
