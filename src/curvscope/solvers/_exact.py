"""All eigenpairs by forming the matrix: for small D, and to judge everything else by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import psutil
import torch
from torch import Tensor

from curvscope.errors import OutOfBudget
from curvscope.measurement import Measured, Meter, refuse_asymmetry
from curvscope.solvers.driver import EigenProblem, MethodOptions, Pairs, Prepared, Resources, solve, unit_of
from curvscope.solvers.results import Solution, wanted
from curvscope.system import as_bytes, as_text, resident_bytes
from curvscope.tall import small_dtype

COLUMNS_AT_A_TIME = 64


def bytes_needed(size: int) -> int:
    """Memory of the dense solve: the matrix, its eigenvectors and the solver's workspace, in float64."""
    return 4 * size * size * 8


@dataclass(frozen=True)
class Exact(MethodOptions):
    """All eigenpairs from the dense float64 matrix: for ``method=`` of :func:`curvscope.eigsh`.

    The matrix is measured column by column in the operator's dtype, symmetrised (the rounding is reported) and decomposed
    in float64 on the CPU. For a result that is exact to float64 the operator must be float64 too.

    Attributes:
        block_size: columns a product call; default 64.

    Cost: D + k products, about 10 D^3 operations; memory: 4 D^2 float64 numbers.

    >>> from curvscope.solvers import eigsh
    >>> eigsh(torch.diag(torch.arange(50.0)), 2, method=Exact()).eigenvalues.tolist()
    [49.0, 48.0]
    """

    block_size: int | None = None

    name: ClassVar[str] = "exact"

    def solve(self, problem: EigenProblem, resources: Resources) -> Solution:
        """Find the pairs; see :func:`curvscope.eigsh`.

        Raises:
            OutOfBudget: the matrix does not fit the free memory. NotHermitian: it is not symmetric, beyond rounding.
        """
        size, memory = problem.operator.shape[0], resources.memory
        free = psutil.virtual_memory().available if memory is None else as_bytes(memory) - resident_bytes()
        if bytes_needed(size) > free:
            raise OutOfBudget(
                f'method="exact" needs {as_text(bytes_needed(size))} for D = {size}, {as_text(max(free, 0))} are free: '
                'use method="krylov", or more memory'
            )
        # The block size is no part of the key: measured columns are the same to rounding.
        options = {"method": "exact", "k": problem.k, "which": problem.which}
        return solve(problem, Prepared(partial(self.find, problem), options, ("k",)), resources)

    def find(self, problem: EigenProblem, meter: Meter) -> Pairs:
        """Measure the matrix and decompose it."""
        assert problem.k is not None
        return _pairs(meter, problem.k, problem.which, self.block_size or COLUMNS_AT_A_TIME)


def dense_matrix(meter: Meter, block_size: int = COLUMNS_AT_A_TIME) -> tuple[Tensor, float]:
    """The symmetrised matrix, in double precision on the CPU, measured column by column; and its relative asymmetry.

    Cost: D products; memory: 2 D^2 float64 numbers.

    Raises:
        NotHermitian: it is not symmetric, beyond rounding.
    """
    operator, size = meter.operator, meter.operator.shape[0]
    matrix = torch.empty(size, size, dtype=small_dtype(operator.dtype), device="cpu")
    with meter.stage("columns", size):
        units = Units(size, operator.dtype, operator.device)
        for start, block, _ in Measured(meter, units, size, block_size, kept=0, name="columns"):
            matrix[start : start + block.shape[1]] = block.mH.to("cpu", matrix.dtype)  # A* = A
    norm = float(matrix.norm())
    asymmetry = float((matrix - matrix.mH).norm()) / norm if norm else 0.0
    refuse_asymmetry(asymmetry, operator, "its matrix differs from the transpose")
    matrix.add_(matrix.mH.clone()).mul_(0.5)
    return matrix, asymmetry


def _pairs(meter: Meter, k: int, which: str, block_size: int) -> Pairs:
    operator, size = meter.operator, meter.operator.shape[0]
    matrix, asymmetry = dense_matrix(meter, block_size)
    with meter.stage("dense eigenproblem", 0):
        values, vectors = torch.linalg.eigh(matrix)
    del matrix
    chosen = wanted(values, k, which)
    basis = meter.workspace.room(size, len(chosen), operator)
    basis.write(0, vectors[:, chosen].to(operator.device, operator.dtype))
    return Pairs(
        values[chosen],
        basis,
        tol=1e3 * unit_of(operator),
        advice="the products round more than that: use dtype=torch.float64, and look at diagnostics['asymmetry']",
        diagnostics={"asymmetry": asymmetry},
        norm=float(values.abs().max()),
    )


class Units:
    """The columns of the identity."""

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.size, self.dtype, self.device = size, dtype, device

    def columns(self, start: int, stop: int) -> Tensor:
        """Columns start..stop of the identity."""
        units = torch.zeros(self.size, stop - start, dtype=self.dtype, device=self.device)
        units[torch.arange(start, stop, device="cpu"), torch.arange(stop - start, device="cpu")] = 1
        return units
