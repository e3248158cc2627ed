"""What a solve will take, before it is begun."""

from curvscope.solvers.planning._plan import Plan, plan
from curvscope.solvers.planning._rehearsal import Free

__all__ = [
    "Free",
    "Plan",
    "plan",
]
