"""What a solve will take, before it is begun."""

from curvscope.solvers.planning._plan import plan
from curvscope.solvers.planning._rehearsal import ZeroCostDiagonal
from curvscope.solvers.planning._result import Plan

__all__ = [
    "Plan",
    "ZeroCostDiagonal",
    "plan",
]
