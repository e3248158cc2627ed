"""Loss curvature of neural networks at scale, with error bars.

The whole way in three lines::

    H = cs.hessian(model, criterion, loader)
    solution = cs.eigsh(H, k=100)
    curve = cs.overlap(solution, cs.masks.by_magnitude(model))
"""

from importlib.metadata import version

from curvscope import errors, problems
from curvscope.errors import CurvscopeError
from curvscope.operators import Operator, as_operator, ggn, hessian
from curvscope.solvers import Solution, eigsh, load, seigh
from curvscope.subspaces import OverlapCurve, Ranking, masks, overlap
from curvscope.training import Recorder

__version__ = version("curvscope")

__all__ = [
    "CurvscopeError",
    "Operator",
    "OverlapCurve",
    "Ranking",
    "Recorder",
    "Solution",
    "__version__",
    "as_operator",
    "eigsh",
    "errors",
    "ggn",
    "hessian",
    "masks",
    "open",
    "overlap",
    "problems",
    "seigh",
]


def open(path: str) -> Solution:
    """The solution in a directory that ``Solution.save`` or ``curvscope eigs`` wrote; see :func:`.storage.load`."""
    return load(path)
