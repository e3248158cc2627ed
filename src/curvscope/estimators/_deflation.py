"""Known eigenpairs taken out of an operator, so that only what is not known needs to be estimated."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.operators import operator_differences
from curvscope.operators.base import Operator
from curvscope.solvers import Solution
from curvscope.tall import InMemory, TallMatrix, gram, subtract


class Deflation:
    """(I - V V*) A (I - V V*), V the eigenvectors of a solution; A itself without one.

    Args:
        operator: A, Hermitian.
        multiply: products with it.
        solution: of this very operator; None: nothing is known.

    Attributes:
        values: float64 (k,), the known eigenvalues.
        vectors: V, (D, k); None without a solution.
        size: D - k.

    Raises:
        InvalidArgument: a solution of another operator.
    """

    def __init__(self, operator: Operator, multiply: Callable[[Tensor], Tensor], solution: Solution | None) -> None:
        self.operator, self._multiply = operator, multiply
        self.values, self.vectors = torch.zeros(0, dtype=torch.float64, device="cpu"), None
        if solution is not None:
            check_solution(operator, solution)
            self.values, self.vectors = solution.eigenvalues, solution.eigenvectors
        self.size = operator.shape[0] - len(self.values)

    def project(self, block: Tensor) -> Tensor:
        """(I - V V*) block, twice for orthogonality to rounding; float64, the block itself where it is that."""
        if self.vectors is None:
            return block.double()
        block = block.double().clone()
        for _ in range(2):
            _subtract(block, self.vectors, gram(self.vectors, InMemory(block), double=True))
        return block

    def multiply_raw(self, block: Tensor) -> Tensor:
        """A block in float64, the products in the operator's own dtype."""
        return self._multiply(block.to(self.operator.device, self.operator.dtype)).double()

    def multiply(self, block: Tensor) -> Tensor:
        """(I - V V*) A block for a block that has no part along V already; float64."""
        return self.project(self.multiply_raw(block))


def check_solution(operator: Operator, solution: Solution, name: str = "deflate") -> None:
    """Raise InvalidArgument, with the argument's name, unless a solution is of this very operator."""
    rows = solution.eigenvectors.shape[0]
    differing = [f"D is {rows} in the solution and {operator.shape[0]} here"] if rows != operator.shape[0] else []
    if differing := differing or operator_differences(solution.provenance, operator, there="in the solution"):
        raise InvalidArgument(
            f"{name} is not a solution of this operator: {'; '.join(differing)}. Pass "
            f"{operator.needed_again}, in the same dtype"
        )


def _subtract(block: Tensor, basis: TallMatrix, coefficients: Tensor) -> None:
    """As :func:`.tall.subtract`, in double precision whatever the basis is in."""
    if basis.dtype == block.dtype:
        subtract(block, basis, coefficients)
        return
    for panel in basis.panels():
        block[panel] -= basis.rows(panel).double() @ coefficients.to(basis.device)
