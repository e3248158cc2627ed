"""What is known of a whole spectrum without its eigenvectors: density, trace, diagonal, norms."""

from curvscope.estimators.density import Density
from curvscope.estimators.estimate import DiagonalEstimate, Estimate, NormBound
from curvscope.estimators.outliers import RULES, count_outliers
from curvscope.estimators.quadrature import density

__all__ = ["RULES", "Density", "DiagonalEstimate", "Estimate", "NormBound", "count_outliers", "density"]
