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
from curvscope.certify import FrobeniusEstimate, Scree, probes_needed
from curvscope.errors import CurvscopeError
from curvscope.estimators import (
    ClassStructure,
    Density,
    DiagonalEstimate,
    Estimate,
    NormBound,
    block_triangular,
    class_structure,
    count_outliers,
    density,
    diagonal,
    frobenius_norm,
    spectral_norm,
    trace,
)
from curvscope.execution.workers import Workers
from curvscope.operators import (
    Objective,
    Operator,
    Preflight,
    Recipe,
    as_operator,
    data_parallel,
    empirical_fisher,
    ggn,
    gradient_second_moment,
    hessian,
    jacobian,
    monte_carlo_fisher,
    preflight,
)
from curvscope.solvers import (
    Plan,
    SingularSolution,
    Solution,
    adaptive_seigh,
    certify,
    eigsh,
    eigsh_by_layer,
    plan,
    posterior_error,
    scree,
    seigh,
    sizes_for_memory,
    sizes_for_products,
    sizes_for_rank,
    ssvd,
    svds,
)
from curvscope.solvers import results as _results
from curvscope.solvers import storage as _storage
from curvscope.subspaces import (
    Mask,
    OverlapCurve,
    Ranking,
    Splitting,
    best_overlap,
    gradient_fraction,
    grassmann,
    kappa,
    mask_null,
    masks,
    overlap,
    overlap_matrix,
    overlap_without_vectors,
    participation_ratio,
    proxies,
    splitting,
)
from curvscope.training import LineProfile, Recorder, Tracker, interpolate, loss_along

__version__ = version("curvscope")

__all__ = [
    "ClassStructure",
    "CurvscopeError",
    "Density",
    "DiagonalEstimate",
    "Estimate",
    "FrobeniusEstimate",
    "LineProfile",
    "Mask",
    "NormBound",
    "Objective",
    "Operator",
    "OverlapCurve",
    "Plan",
    "Preflight",
    "Ranking",
    "Recipe",
    "Recorder",
    "Scree",
    "SingularSolution",
    "Solution",
    "Splitting",
    "Tracker",
    "Workers",
    "__version__",
    "adaptive_seigh",
    "as_operator",
    "best_overlap",
    "block_triangular",
    "certify",
    "class_structure",
    "count_outliers",
    "data_parallel",
    "density",
    "diagonal",
    "eigsh",
    "eigsh_by_layer",
    "empirical_fisher",
    "errors",
    "frobenius_norm",
    "ggn",
    "gradient_fraction",
    "gradient_second_moment",
    "grassmann",
    "hessian",
    "interpolate",
    "jacobian",
    "kappa",
    "loss_along",
    "mask_null",
    "masks",
    "monte_carlo_fisher",
    "open",
    "overlap",
    "overlap_matrix",
    "overlap_without_vectors",
    "participation_ratio",
    "plan",
    "posterior_error",
    "preflight",
    "probes_needed",
    "problems",
    "proxies",
    "scree",
    "seigh",
    "sizes_for_memory",
    "sizes_for_products",
    "sizes_for_rank",
    "spectral_norm",
    "splitting",
    "ssvd",
    "svds",
    "trace",
]


def open(path: str | os.PathLike[str]) -> Solution | SingularSolution:
    """The solution in a run of ``curvscope eigs``, or in a directory that ``Solution.save`` or ``SingularSolution.save`` wrote.

    Raises:
        RunNotFound: none is there, or a part is missing.

    >>> import tempfile, torch, curvscope as cs
    >>> folder = Path(tempfile.mkdtemp()) / "pairs"
    >>> cs.eigsh(torch.diag(torch.tensor([3.0, -5.0, 1.0])), k=2).save(folder)
    >>> cs.open(folder).eigenvalues.tolist()
    [-5.0, 3.0]
    """
    place = _results.results_of(Path(path)) if _results.has_results(Path(path)) else path
    return (SingularSolution if _storage.form_of(place) == _storage.SINGULAR else Solution).load(place)
