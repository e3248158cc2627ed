"""What is known of a whole spectrum without its eigenvectors: density, trace, diagonal, norms."""

from curvscope.estimators.classes import ClassStructure, class_structure
from curvscope.estimators.density import Density
from curvscope.estimators.estimate import DiagonalEstimate, Estimate, NormBound
from curvscope.estimators.norms import frobenius_norm, spectral_norm
from curvscope.estimators.outliers import RULES, count_outliers
from curvscope.estimators.quadrature import density
from curvscope.estimators.trace import diagonal, trace
from curvscope.estimators.triangular import block_triangular

__all__ = [
    "RULES",
    "ClassStructure",
    "Density",
    "DiagonalEstimate",
    "Estimate",
    "NormBound",
    "block_triangular",
    "class_structure",
    "count_outliers",
    "density",
    "diagonal",
    "frobenius_norm",
    "spectral_norm",
    "trace",
]
