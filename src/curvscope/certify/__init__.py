"""How right computed eigenpairs are: pure functions of values, vectors and fresh products."""

from curvscope.certify.residuals import eigenvalue_intervals, residual_norms

__all__ = ["eigenvalue_intervals", "residual_norms"]
