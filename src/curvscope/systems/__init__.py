"""Linear systems with curvature matrices, with error bounds."""

from curvscope.systems._result import LinearSolution
from curvscope.systems._solve import solve

__all__ = ["LinearSolution", "solve"]
