"""What every tall matrix must do, wherever it lies."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from curvscope.sketches import TestMatrix
from curvscope.tall import InMemory, TallMatrix, gram, multiply, orthogonality, orthonormalize, small_dtype, subtract
from curvscope.testing._close import random, require, require_close

Make = Callable[[Tensor], TallMatrix]
"""``make(tensor)``: a tall matrix with the entries of a (D, n) tensor."""

ROWS, COLUMNS = 1500, 10


def _made(make: Make, dtype: torch.dtype, columns: int = COLUMNS, seed: int = 0) -> tuple[TallMatrix, Tensor]:
    tensor = random(ROWS, columns, dtype, torch.device("cpu"), seed)
    return make(tensor), tensor


def holds_what_was_put_in(make: Make, dtype: torch.dtype) -> None:
    """Columns, rows in any order, leading columns and the whole are the same bits."""
    matrix, tensor = _made(make, dtype)
    require(matrix.shape == (ROWS, COLUMNS) and matrix.dtype == dtype, "shape and dtype are those of the entries")
    require(len(matrix) == matrix.shape[0], "the length is the number of rows, as of arrays")
    require(torch.equal(matrix.to_tensor(), tensor), "to_tensor gives all entries")
    for start, stop in ((0, 3), (2, 7), (COLUMNS - 1, COLUMNS), (4, 4)):
        require(torch.equal(matrix.columns(start, stop), tensor[:, start:stop]), f"columns({start}, {stop})")
    index = torch.tensor([ROWS - 1, 3, 3, 0, 700], device="cpu")
    require(torch.equal(matrix.rows(index), tensor[index]), "rows at an index, in its order, repeated ones too")
    for rows in (slice(0, 5), slice(250, 1300), slice(ROWS - 3, ROWS), slice(None)):
        require(torch.equal(matrix.rows(rows), tensor[rows]), f"rows at {rows}")
    require(torch.equal(matrix.leading(4).rows(index), tensor[index, :4]), "rows of the leading columns")
    require(matrix.leading(4).shape == (ROWS, 4), "leading columns have their shape")
    part = matrix.between(3, 9).between(2, 5)
    require(torch.equal(part.to_tensor(), tensor[:, 5:8]), "columns of a part")
    require(torch.equal(part.rows(slice(100, 300)), tensor[100:300, 5:8]), "rows of a part")


def panels_cover_the_rows(make: Make, dtype: torch.dtype) -> None:
    """Panels follow one another, cover all rows once, and are as short as was asked for."""
    matrix, tensor = _made(make, dtype)
    for most in (None, 100):
        panels = list(matrix.panels(most))
        require(panels[0].start == 0 and panels[-1].stop == ROWS, "panels begin and end with the matrix")
        require(all(a.stop == b.start for a, b in pairwise(panels)), "panels follow one another")
        require(most is None or all(p.stop - p.start <= most for p in panels), "panels have at most most_rows rows")
        require(torch.equal(torch.cat([matrix.rows(p) for p in panels]), tensor), "panels hold all entries")


def takes_columns_and_panels(make: Make, dtype: torch.dtype) -> None:
    """Check that written columns and panels are read again, also by views made before; other entries stay."""
    matrix, tensor = _made(make, dtype)
    tensor = tensor.clone()
    view = matrix.leading(6)
    view.rows(slice(0, 10))
    fresh = random(ROWS, 3, dtype, torch.device("cpu"), 7)
    matrix.write(4, fresh)
    tensor[:, 4:7] = fresh
    require(torch.equal(matrix.to_tensor(), tensor), "columns that were written, and the others")
    require(torch.equal(view.rows(slice(0, 10)), tensor[:10, :6]), "a view sees what was written after it was made")
    for panel in matrix.panels():
        matrix.write_rows(panel, 2 * matrix.rows(panel)[:, :5])
    tensor[:, :5] *= 2
    require(torch.equal(matrix.to_tensor(), tensor), "panels rewritten in place while they are read")
    part = matrix.between(3, 8)
    part.write(1, fresh)
    tensor[:, 4:7] = fresh
    for panel in part.panels():
        part.write_rows(panel, -part.rows(panel)[:, :1])
    tensor[:, 3] *= -1
    require(torch.equal(matrix.to_tensor(), tensor), "what is written to a part is in the matrix")
    room = matrix.empty_like(2)
    room.write(0, fresh[:, :2])
    require(torch.equal(room.to_tensor(), fresh[:, :2]) and room.dtype == dtype, "empty_like gives room of its own")
    require(torch.equal(matrix.to_tensor(), tensor), "what is written there leaves the matrix alone")


def algebra_is_that_of_tensors(make: Make, dtype: torch.dtype) -> None:
    """The panel algebra (gram, multiply, subtract, sketches) gives what tensors give."""
    (A, a), (B, b) = _made(make, dtype), _made(make, dtype, 4, seed=1)
    high, unit = small_dtype(dtype), torch.finfo(dtype).eps
    allowed = 20 * unit * ROWS
    exact = a.to(high).mH @ b.to(high)
    require_close(gram(A, B), exact, allowed, "gram(A, B)")
    require_close(gram(A, B, double=True), exact, 1e-9, "gram(A, B, double=True)")
    require_close(gram(A, InMemory(b)), exact, allowed, "gram with a matrix in memory")
    require_close(gram(InMemory(b), A), exact.mH, allowed, "gram of a matrix in memory with it")
    require_close(gram(A, A), a.to(high).mH @ a.to(high), allowed, "gram(A, A)")
    small = random(COLUMNS, 3, high, torch.device("cpu"), 2)
    product = a.to(high) @ small
    require_close(multiply(A, small).to_tensor().to(high), product, allowed, "multiply(A, S)")
    block = random(ROWS, 3, dtype, torch.device("cpu"), 3)
    rest = block.clone()
    subtract(rest, A, small)
    require_close(rest.to(high), block.to(high) - product, allowed, "subtract(W, A, C)")
    for kind in ("gaussian", "sparse_sign"):
        psi = TestMatrix(kind, ROWS, seed=0, role="left", dtype=dtype)
        expected = psi.columns(0, 20).to(high).mH @ a.to(high)
        require_close(psi.adjoint_multiply(A, 0, 20), expected, 4 * allowed, f"{kind} sketch of A")
    multiply(A, torch.eye(COLUMNS, dtype=high, device="cpu") * 3, into=A)
    require_close(A.to_tensor().to(high), 3 * a.to(high), allowed, "multiply in place")


def is_made_orthonormal(make: Make, dtype: torch.dtype) -> None:
    """The basis is orthonormal, spans the matrix, and the matrix itself stays as it was; dependent columns are dropped."""
    tensor = random(ROWS, COLUMNS, dtype, torch.device("cpu")) * torch.logspace(0, -4, COLUMNS, device="cpu").to(dtype)
    tensor[:, -1] = tensor[:, 0] - 2 * tensor[:, 1]
    matrix, high, unit = make(tensor), small_dtype(dtype), torch.finfo(dtype).eps
    found = orthonormalize(matrix)
    require(found.basis.shape == (ROWS, COLUMNS - 1), "the rank is revealed")
    require(orthogonality(found.basis) <= 50 * unit, "the basis is orthonormal to rounding")
    again = found.basis.to_tensor().to(high) @ found.coefficients
    require_close(again, tensor.to(high), 100 * unit * ROWS**0.5, "Q R is the matrix")
    require(torch.equal(matrix.to_tensor(), tensor), "the matrix is unchanged")


TALL_CHECKS: tuple[Callable[[Make, torch.dtype], None], ...] = (
    holds_what_was_put_in,
    panels_cover_the_rows,
    takes_columns_and_panels,
    algebra_is_that_of_tensors,
    is_made_orthonormal,
)


def check_tall(make: Make, dtype: torch.dtype = torch.float32) -> None:
    """All of :data:`TALL_CHECKS` for ``make(tensor)``.

    Raises:
        AssertionError: the first that is violated.

    >>> check_tall(lambda tensor: InMemory(tensor.clone()))
    """
    for check in TALL_CHECKS:
        check(make, dtype)
