"""Linear systems with a damped curvature matrix: (A + damping I) X = B."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

from torch import Tensor

from curvscope.errors import InvalidArgument, OutOfBudget
from curvscope.estimators import check_solution
from curvscope.measurement import WIDEST_BLOCK
from curvscope.operators import as_operator, in_its_form, is_other_form
from curvscope.operators.base import Operator
from curvscope.solvers import Solution
from curvscope.solvers.driver import check_operator, metered
from curvscope.system import Progress, as_bytes, as_text, checked, default_memory, resident_bytes
from curvscope.systems._distance import proven_distance
from curvscope.systems._preconditioner import preconditioner_of
from curvscope.systems._result import LinearSolution
from curvscope.systems._right import check_right, plain_right
from curvscope.systems._rounds import Request, Systems

BLOCKS = 14
"""Float64 vectors for each column of a block while it is iterated on, temporary ones included."""


@checked
def solve(  # noqa: PLR0913 -- a public function: request and resources, by keyword
    operator: Any,
    right: Any,
    *,
    damping: float = 0.0,
    tol: float = 1e-5,
    method: Literal["auto", "cg", "minres"] = "auto",
    deflate: Solution | None = None,
    preconditioner: Any = None,
    spectrum: Any = None,
    max_products: int | None = None,
    block_size: int | None = None,
    memory: int | str | None = None,
    executor: Any = None,
    progress: Progress = None,
) -> LinearSolution:
    r"""Solve (A + damping I) X = B for a symmetric A, with a fresh residual and, where it is proven, an error bound a column.

    .. math:: \|x - x_*\| \le \|b - (A + \mu I) x\| / \mathrm{dist}(-\mu, \mathrm{spec}\,A)

    Several right-hand sides share one block Krylov space. Iterations run in float64, beside products in the operator's own
    dtype, and start again from fresh residuals until these are at most ``tol`` ||b||.

    Args:
        operator: A, D x D; anything that :func:`curvscope.as_operator` takes.
        right: B: a vector (D,), a block (D, n), an array, tensors by parameter name, or a list of one for each parameter.
        damping: mu, added to the diagonal.
        tol: of each residual, relative to its right-hand side.
        method: "cg" (block conjugate gradients, for positive definite systems), "minres" (block minimal residuals, for any), or
            "auto": cg where the system is known to be positive definite, else minres.
        deflate: a solution of this operator. Its pairs are solved for by themselves, so that the iteration has to do with the
            rest of the spectrum only; they need not be exact.
        preconditioner: approximates (A + damping I)^-1, as SciPy's ``M``: an operator, or its diagonal (D,). A
            ``solution.low_rank(damping)``, which approximates the matrix itself, is inverted. Positive definite.
        spectrum: what else is known of A's spectrum, for the error bounds: a certified solution, such as one with
            ``which="SA"``, or a number that no eigenvalue is below.
        max_products: of the iteration, all right-hand sides together; None: 10 D for each.
        block_size: right-hand sides that are iterated on together; None: up to 32.
        memory: bound for the memory of the whole process; None: current usage plus 80 % of the free memory.
        executor: who computes the products, the columns of each block dealt out; see :func:`curvscope.eigsh`. None: this
            process.
        progress: see :data:`.progress.Progress`.

    Returns:
        ``.x`` in the form of B, ``.residual_norms``, ``.relative_residuals``, ``.error_bounds`` (infinite where nothing proves
        one), ``.inertia`` (whether the matrix was seen to be indefinite or singular), ``.status``, ``.cost``.

    Cost: a product a right-hand side and step, and one for each fresh residual; memory: 2 n + 14 b vectors in float64, b the
        block size.

    Raises:
        InvalidArgument: an operator that is not square, symmetric and real, a B of another size, a solution of another operator
            in ``deflate``, a preconditioner that is not positive definite. NotFinite: NaN in a product or in B.
            OutOfBudget: a block does not fit into memory.
    Limits: a bound is for the operator that is applied. It includes the rounding of the products as far as the largest quotient
        that was met is the norm of A. Nothing is kept in a run.
    Source: O'Leary (1980); Dubrulle (2001); Paige and Saunders (1975).

    >>> import torch
    >>> import curvscope as cs
    >>> A = cs.problems.spectrum("power", 200)
    >>> found = cs.solve(A, torch.ones(200, dtype=A.dtype), damping=0.01)
    >>> found.converged, bool(found.relative_residuals < 1e-5)
    (True, True)
    """
    operator = as_operator(operator)
    check_operator(operator)
    if deflate is not None:
        check_solution(operator, deflate)
    if isinstance(spectrum, Solution):
        check_solution(operator, spectrum, "spectrum")
    is_number = isinstance(spectrum, int | float) and not isinstance(spectrum, bool) and not math.isnan(spectrum)
    if not (spectrum is None or is_number or isinstance(spectrum, Solution)):
        raise InvalidArgument(f"spectrum={spectrum!r:.60}: pass a certified solution, or a number that no eigenvalue is below")
    proven = proven_distance(operator, damping, [deflate, spectrum])
    request = Request(
        operator,
        damping,
        tol,
        _chosen(method, operator, damping, [deflate, spectrum]),
        falls_back=method == "auto",
        preconditioner=preconditioner_of(operator, damping, deflate, preconditioner),
        block_size=block_size or WIDEST_BLOCK,
        budget=max_products,
    )
    made: list[Systems] = []

    def solved(block: Tensor) -> Tensor:
        """Solve for a (D,) or (D, n) tensor in the operator's dtype."""
        columns = block[:, None] if block.ndim == 1 else block
        check_right(columns, operator)
        fitted = _fitted(request, columns.shape[1], memory)
        with metered(operator, executor, progress) as meter, meter.stage("linear systems", 0):
            found = Systems(meter, fitted, columns.double())
            found.run()
        made.append(found)
        x = found.x.to(operator.dtype)
        return x[:, 0] if block.ndim == 1 else x

    x = in_its_form(operator, right, solved) if is_other_form(operator, right) else solved(plain_right(operator, right))
    return made[0].result(x, proven)


def _chosen(method: str, operator: Operator, damping: float, known: list[Any]) -> str:
    """The method to begin with; "auto" takes CG where the matrix is known to be positive definite."""
    if method != "auto":
        return method
    lower = [one for one in known if isinstance(one, int | float)]
    ends = [float(one.eigenvalues.min()) for one in known if isinstance(one, Solution)]
    if any(end + damping <= 0 for end in ends):
        return "minres"
    return "cg" if (operator.semidefinite and damping >= 0) or any(end + damping > 0 for end in lower) else "minres"


def _fitted(request: Request, count: int, memory: int | str | None) -> Request:
    """The request with as many columns at a time as fit.

    Raises:
        OutOfBudget: not one does.
    """
    bound = default_memory() if memory is None else as_bytes(memory)
    free, column = bound - resident_bytes(), 8 * request.operator.shape[0]
    width = min(request.block_size, max(1, count))
    most = (free - 3 * count * column) // (BLOCKS * column)
    if most < 1:
        needed = resident_bytes() + (3 * count + BLOCKS) * column
        raise OutOfBudget(
            f"{count} right-hand sides need {as_text(needed)} in all, memory={as_text(bound)}: pass fewer at a time"
        )
    fitted = min(width, most)
    return replace(request, block_size=fitted)
