"""Hessian, Gauss-Newton, Fisher matrices and Jacobian of an objective, as operators."""

from curvscope.operators.curvature._build import MatrixOptions, check_weights
from curvscope.operators.curvature._empirical_fisher import EmpiricalFisher, empirical_fisher
from curvscope.operators.curvature._gauss_newton import GeneralizedGaussNewton, ggn
from curvscope.operators.curvature._hessian import Hessian, hessian
from curvscope.operators.curvature._jacobian import Jacobian, jacobian
from curvscope.operators.curvature._monte_carlo_fisher import MonteCarloFisher, monte_carlo_fisher
from curvscope.operators.curvature._operator import CurvatureOperator
from curvscope.operators.curvature._preflight import Check, Preflight, preflight
from curvscope.operators.curvature._second_moment import GradientSecondMoment, gradient_second_moment

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
