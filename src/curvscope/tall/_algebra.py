"""Products of tall matrices, panel by panel; small results are float64 on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from curvscope.tall._matrix import InMemory, TallMatrix
from curvscope.tall._triangles import add_gram, mirrored, rows_at_a_time


def small_dtype(dtype: torch.dtype) -> torch.dtype:
    """The double-precision kin of a dtype, in which small matrices are held."""
    return torch.complex128 if dtype.is_complex else torch.float64


def gram(left: TallMatrix, right: TallMatrix, *, double: bool = False) -> Tensor:
    """left* @ right, (n, m), double precision on the CPU.

    Panels are multiplied in the matrices' own precision and summed in double; with ``double`` the panels are converted first,
    which costs about twice the time and gives sums right to double rounding.

    Cost: 2 D n m operations, one read of each, and 0.6 times that for a matrix with itself; memory: two panels.

    >>> V = InMemory(torch.eye(3)[:, :2])
    >>> gram(V, V).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    high = small_dtype(left.dtype)
    if _is_one_panel(left, right) and not double:
        a, b = left.rows(slice(None)), right.rows(slice(None))
        return (a.mH @ b if a.shape[1] <= b.shape[1] else (b.mH @ a).mH).to(high).cpu()
    total = torch.zeros(left.shape[1], right.shape[1], dtype=high, device=left.device)
    if left is right:
        for panel in left.panels(rows_at_a_time(left.shape[1])):
            block = left.rows(panel)
            add_gram(total, block.to(high) if double else block)
        return mirrored(total).cpu()
    for panel in leader(left, right).panels(rows_at_a_time(max(total.shape))):
        a, b = left.rows(panel), right.rows(panel)
        if double:
            a, b = a.to(high), b.to(high)
        # The narrow factor first: matrix products are much slower the other way round.
        total += a.mH @ b if total.shape[0] <= total.shape[1] else (b.mH @ a).mH
    return total.cpu()


def _is_one_panel(left: TallMatrix, right: TallMatrix) -> bool:
    """Return whether both are in memory and small enough to multiply at once: calls take half of a narrow product's time."""
    if left is right or not (isinstance(left, InMemory) and isinstance(right, InMemory)):
        return False
    return left.shape[0] <= rows_at_a_time(max(left.shape[1], right.shape[1]))


def leader(left: TallMatrix, right: TallMatrix) -> TallMatrix:
    """The one whose panels both are read by: on disk rather than in memory, then the wider."""
    if isinstance(left, InMemory) != isinstance(right, InMemory):
        return right if isinstance(left, InMemory) else left
    return left if left.shape[1] >= right.shape[1] else right


def multiply(matrix: TallMatrix, small: Tensor, *, into: TallMatrix | None = None) -> TallMatrix:
    """The product matrix @ small for a small (n, m) matrix, as a new tall matrix where the first lies, or in ``into``.

    ``into`` may be ``matrix`` itself: every panel is read before it is written.

    Cost: 2 D n m operations, one read and one write; memory: the D x m result, if the matrix is in memory; two panels.

    >>> multiply(InMemory(torch.eye(3)[:, :2]), torch.tensor([[2.0], [3.0]])).to_tensor().T.tolist()
    [[2.0, 3.0, 0.0]]
    """
    result = matrix.empty_like(small.shape[1]) if into is None else into
    factor = small.to(matrix.device, matrix.dtype)
    for panel in (matrix if isinstance(result, InMemory) else result).panels():
        result.write_rows(panel, (factor.mT @ matrix.rows(panel).mT).mT)
    return result


def subtract(block: Tensor, basis: TallMatrix, coefficients: Tensor) -> None:
    """In place, block <- block - basis @ coefficients for a (D, b) block in memory.

    Cost: 2 D n b operations, one read of the basis; memory: one panel.

    >>> block = torch.ones(3, 1)
    >>> subtract(block, InMemory(torch.eye(3)[:, :2]), torch.ones(2, 1, dtype=torch.float64))
    >>> block.T.tolist()
    [[0.0, 0.0, 1.0]]
    """
    factor = coefficients.to(basis.device, basis.dtype).mT
    for panel in basis.panels(rows_at_a_time(basis.shape[1])):
        block[panel].mT.addmm_(factor, basis.rows(panel).mT, alpha=-1)  # transposed: faster for narrow blocks
