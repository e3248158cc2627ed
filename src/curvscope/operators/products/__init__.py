"""Exact products of one mini-batch's curvature with blocks of tangents."""

from curvscope.operators.products.double_backward import RetainedGradient
from curvscope.operators.products.gauss_newton import GaussNewton

__all__ = ["GaussNewton", "RetainedGradient"]
