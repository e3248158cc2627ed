"""Linear systems with curvature matrices and what is done with them, with error bounds."""

from curvscope.systems._compare import Comparison, compare
from curvscope.systems._function import function
from curvscope.systems._function_result import FunctionResult
from curvscope.systems._function_trace import function_trace, logdet
from curvscope.systems._influence import Influence, influence
from curvscope.systems._laplace import laplace
from curvscope.systems._posterior import Evidence, Posterior, Variance
from curvscope.systems._rayleigh import RayleighQuotient, rayleigh_quotient
from curvscope.systems._result import LinearSolution
from curvscope.systems._solve import solve

__all__ = [
    "Comparison",
    "Evidence",
    "FunctionResult",
    "Influence",
    "LinearSolution",
    "Posterior",
    "RayleighQuotient",
    "Variance",
    "compare",
    "function",
    "function_trace",
    "influence",
    "laplace",
    "logdet",
    "rayleigh_quotient",
    "solve",
]
