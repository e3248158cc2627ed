"""All eigenpairs by forming the matrix: for small D, and to judge everything else by."""

from __future__ import annotations

import psutil
import torch

from curvscope.errors import OutOfBudget
from curvscope.operators import Operator
from curvscope.solvers.finish import Pairs, finish
from curvscope.solvers.meter import Meter
from curvscope.solvers.ordering import wanted
from curvscope.solvers.solution import Solution
from curvscope.tall import InMemory

COLUMNS_AT_A_TIME = 64


def bytes_needed(size: int) -> int:
    """Memory of the dense solve: the matrix, its eigenvectors and the solver's workspace, in float64."""
    return 4 * size * size * 8


def exact(operator: Operator, k: int, *, which: str, progress: object = None) -> Solution:
    """The k wanted eigenpairs from the dense float64 matrix.

    The matrix is measured column by column in the operator's dtype, symmetrised (the asymmetry is reported) and decomposed
    in float64 on the CPU; for a result that is exact to float64 the operator must be float64 too.

    Cost: D + k products, about 10 D^3 operations; memory: 4 D^2 float64 numbers.

    Raises:
        OutOfBudget: the matrix does not fit the free memory.
    """
    size = operator.shape[0]
    free = psutil.virtual_memory().available
    if bytes_needed(size) > free:
        raise OutOfBudget(
            f'method="exact" needs {bytes_needed(size) / 2**30:.1f} GiB for D = {size}, {free / 2**30:.1f} GiB are free: '
            'use method="krylov"'
        )
    meter = Meter(operator, progress)
    matrix = torch.empty(size, size, dtype=torch.float64)
    with meter.stage("columns", size):
        for start in range(0, size, COLUMNS_AT_A_TIME):
            stop = min(start + COLUMNS_AT_A_TIME, size)
            units = torch.zeros(size, stop - start, dtype=operator.dtype, device=operator.device)
            units[torch.arange(start, stop), torch.arange(stop - start)] = 1
            matrix[start:stop] = meter.multiply(units).T.to("cpu", torch.float64)
    norm = float(matrix.norm())
    asymmetry = float((matrix - matrix.T).norm()) / norm if norm else 0.0
    matrix.add_(matrix.T.clone()).mul_(0.5)
    with meter.stage("dense eigenproblem", 0):
        values, vectors = torch.linalg.eigh(matrix)
    del matrix
    chosen = wanted(values, k, which)
    basis = InMemory.empty(size, len(chosen), operator.dtype, operator.device)
    basis.tensor[:] = vectors[:, chosen].to(operator.device, operator.dtype)
    pairs = Pairs(
        values[chosen],
        basis,
        tol=1e3 * torch.finfo(operator.dtype).eps,
        advice="the products round more than that: use dtype=torch.float64, and look at diagnostics['asymmetry']",
        diagnostics={"asymmetry": asymmetry},
    )
    return finish(meter, pairs, which=which, options={"method": "exact", "k": k, "which": which})
