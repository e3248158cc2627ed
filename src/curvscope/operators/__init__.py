"""What is measured: curvature matrices and others, known by their products on blocks."""

from curvscope.operators.base import Operator
from curvscope.operators.curvature import CurvatureOperator, GeneralizedGaussNewton, Hessian, ggn, hessian
from curvscope.operators.interop import Dense, as_operator
from curvscope.operators.objective import Objective
from curvscope.operators.parameters import Parameters

__all__ = [
    "CurvatureOperator",
    "Dense",
    "GeneralizedGaussNewton",
    "Hessian",
    "Objective",
    "Operator",
    "Parameters",
    "as_operator",
    "ggn",
    "hessian",
]
