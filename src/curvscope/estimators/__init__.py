"""What is known of a whole spectrum without its eigenvectors: density, trace, diagonal, norms."""

from curvscope.estimators._classes import ClassStructure, class_structure
from curvscope.estimators._deflation import check_solution
from curvscope.estimators._density import Density
from curvscope.estimators._distribution import reach
from curvscope.estimators._estimate import DiagonalEstimate, Estimate, NormBound
from curvscope.estimators._estimation import METHODS
from curvscope.estimators._norms import frobenius_norm, spectral_norm
from curvscope.estimators._outliers import RULES, count_outliers
from curvscope.estimators._quadrature import density
from curvscope.estimators._trace import diagonal, trace
from curvscope.estimators._triangular import block_triangular

__all__ = [
    "METHODS",
    "RULES",
    "ClassStructure",
    "Density",
    "DiagonalEstimate",
    "Estimate",
    "NormBound",
    "block_triangular",
    "check_solution",
    "class_structure",
    "count_outliers",
    "density",
    "diagonal",
    "frobenius_norm",
    "reach",
    "spectral_norm",
    "trace",
]
