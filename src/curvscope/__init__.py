"""Loss curvature of neural networks at scale, with error bars.

The whole way in three lines::

    H = cs.hessian(model, criterion, loader)
    solution = cs.eigsh(H, k=100)
    curve = cs.overlap(solution, cs.masks.by_magnitude(model))
"""

import os
from importlib.metadata import version
from pathlib import Path

from curvscope import errors, problems
from curvscope.errors import CurvscopeError
from curvscope.operators import (
    Operator,
    Preflight,
    as_operator,
    empirical_fisher,
    ggn,
    gradient_second_moment,
    hessian,
    monte_carlo_fisher,
    preflight,
)
from curvscope.solvers import Solution, certify, eigsh, load, seigh
from curvscope.subspaces import OverlapCurve, Ranking, masks, overlap
from curvscope.training import Recorder

__version__ = version("curvscope")

__all__ = [
    "CurvscopeError",
    "Operator",
    "OverlapCurve",
    "Preflight",
    "Ranking",
    "Recorder",
    "Solution",
    "__version__",
    "as_operator",
    "certify",
    "eigsh",
    "empirical_fisher",
    "errors",
    "ggn",
    "gradient_second_moment",
    "hessian",
    "masks",
    "monte_carlo_fisher",
    "open",
    "overlap",
    "preflight",
    "problems",
    "seigh",
]


def open(path: str | os.PathLike[str]) -> Solution:
    """The solution in a run of ``curvscope eigs``, or in a directory that ``Solution.save`` wrote.

    Raises:
        RunNotFound: neither is there, or a part is missing.
    """
    inside = Path(path) / "solution"
    return load(inside if inside.is_dir() else path)
