"""From operators to eigenpairs."""

from curvscope.solvers.certified import certify
from curvscope.solvers.checks import METHODS
from curvscope.solvers.eigsh import eigsh
from curvscope.solvers.seigh import seigh
from curvscope.solvers.solution import Cost, Solution, Status
from curvscope.solvers.storage import load, replace_saved, save

__all__ = ["METHODS", "Cost", "Solution", "Status", "certify", "eigsh", "load", "replace_saved", "save", "seigh"]
