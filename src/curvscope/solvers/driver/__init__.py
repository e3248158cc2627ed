"""What all solves share: checks, the way from operator to solution, evidence that nothing was missed."""

from curvscope.solvers.driver._checks import (
    METHODS,
    MethodName,
    canonical_method,
    check_fit,
    check_k,
    check_operator,
    check_request,
    check_tol,
)
from curvscope.solvers.driver._completeness import End, Evidence, Search, ends
from curvscope.solvers.driver._finish import Pairs, finish, unit_of
from curvscope.solvers.driver._finish_singular import ADVICE, finish_singular, recalled_triplets, triplets_of_core
from curvscope.solvers.driver._request import EigenProblem, Method, MethodOptions, Prepared, Resources
from curvscope.solvers.driver._solve import metered, session, solve

__all__ = [
    "ADVICE",
    "METHODS",
    "EigenProblem",
    "End",
    "Evidence",
    "Method",
    "MethodName",
    "MethodOptions",
    "Pairs",
    "Prepared",
    "Resources",
    "Search",
    "canonical_method",
    "check_fit",
    "check_k",
    "check_operator",
    "check_request",
    "check_tol",
    "ends",
    "finish",
    "finish_singular",
    "metered",
    "recalled_triplets",
    "session",
    "solve",
    "triplets_of_core",
    "unit_of",
]
