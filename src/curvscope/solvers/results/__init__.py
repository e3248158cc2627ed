"""What solvers return, in which order, and in which formats it is kept."""

from curvscope.solvers.results._export import WRITERS, export
from curvscope.solvers.results._low_rank import LowRank
from curvscope.solvers.results._opened import open
from curvscope.solvers.results._ordering import ORDERS, canonical_signs, check_which, phases, turn_columns, wanted
from curvscope.solvers.results._singular import SingularSolution
from curvscope.solvers.results._solution import Cost, Solution, Status

__all__ = [
    "ORDERS",
    "WRITERS",
    "Cost",
    "LowRank",
    "SingularSolution",
    "Solution",
    "Status",
    "canonical_signs",
    "check_which",
    "export",
    "open",
    "phases",
    "turn_columns",
    "wanted",
]
