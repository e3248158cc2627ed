"""Results that were stored, opened by what they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from curvscope.measurement import SINGULAR, form_of, has_results, results_of
from curvscope.solvers.results._singular import SingularSolution
from curvscope.solvers.results._solution import Solution
from curvscope.store import read_saved
from curvscope.system import checked


@checked
def open(path: str | os.PathLike[str]) -> Any:
    """The solution in a run of ``curvscope eigs``, or whatever ``save`` of a result wrote: a solution, a curve, a density.

    Raises:
        RunNotFound: none is there, or a part is missing.

    >>> import tempfile, torch, curvscope as cs
    >>> folder = Path(tempfile.mkdtemp()) / "pairs"
    >>> cs.eigsh(torch.diag(torch.tensor([3.0, -5.0, 1.0])), k=2).save(folder)
    >>> cs.open(folder).eigenvalues.tolist()
    [-5.0, 3.0]
    """
    if Path(path).is_file():
        return read_saved(Path(path))
    place = results_of(Path(path)) if has_results(Path(path)) else path
    return (SingularSolution if form_of(place) == SINGULAR else Solution).load(place)
