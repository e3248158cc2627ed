"""Curvature as an optimizer sees it: its preconditioner, its threshold of stability."""

from curvscope.operators.optimizers._preconditioned import GeneralizedPairs, Preconditioned, preconditioned
from curvscope.operators.optimizers._threshold import StabilityThreshold, has_preconditioner, stability_threshold

__all__ = [
    "GeneralizedPairs",
    "Preconditioned",
    "StabilityThreshold",
    "has_preconditioner",
    "preconditioned",
    "stability_threshold",
]
