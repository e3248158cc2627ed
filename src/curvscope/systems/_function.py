"""Functions of a matrix on vectors: f(A + damping I) B by block Lanczos, with the error of every column."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from curvscope.certificates import EndCertificate
from curvscope.errors import InvalidArgument, OutOfBudget
from curvscope.estimators import check_solution
from curvscope.measurement import WIDEST_BLOCK, Meter, blocks
from curvscope.operators import as_operator, in_its_form, is_other_form
from curvscope.operators.base import Operator
from curvscope.solvers import Solution
from curvscope.solvers.driver import check_operator, metered
from curvscope.system import Progress, as_bytes, as_text, checked, default_memory, resident_bytes
from curvscope.systems._block_lanczos import SLAB, BlockLanczos, Evaluated, Interval
from curvscope.systems._eigenvalue_functions import Function, function_of
from curvscope.systems._function_result import FunctionResult, Parts, gathered
from curvscope.systems._right import check_right, plain_right

LOOKS = 1.25
"""Growth of the space between two looks at the error, whose cost is that of the eigenpairs of the projected matrix."""
TEMPORARY = 8
"""Float64 vectors for each column of a block beside the basis."""


@checked
def function(  # noqa: PLR0913 -- a public function: request and resources, by keyword
    operator: Any,
    right: Any,
    f: Any,
    *,
    damping: float = 0.0,
    tol: float = 1e-6,
    spectrum: Any = None,
    max_products: int | None = None,
    block_size: int | None = None,
    memory: int | str | None = None,
    executor: Any = None,
    progress: Progress = None,
) -> FunctionResult:
    r"""Apply a function of a symmetric matrix to vectors, f(A + damping I) B, with the error of every column.

    .. math:: f(A) B \approx V f(T) E_1 R, \qquad
        \|\text{error}\| \le \sqrt{b}\, \max_x \Big\| \sum_i (s_i^* E_1 R)\, f[x, \theta_i]\, (\beta E_m^* s_i) \Big\|

    Block Lanczos with full re-orthogonalisation, in float64 beside products in the operator's own dtype. The error is an exact
    formula in divided differences of f at the Ritz values theta; its largest magnitude on an interval is an error bound where
    the interval holds the spectrum, and an estimate on the interval that the iteration has seen.

    Args:
        operator: A, D x D; anything that :func:`curvscope.as_operator` takes.
        right: B: a vector (D,), a block (D, n), an array, tensors by parameter name, or a list of one for each parameter.
        f: "exp", "log", "sqrt", "inverse_sqrt", "inverse", or a function from a float64 tensor of eigenvalues to one of the
            same shape. Functions with kinks, such as the sign, converge slowly where eigenvalues are near the kink.
        damping: mu, added to the diagonal of A.
        tol: of each column's truncation error, relative to its result.
        spectrum: what is known of A's spectrum (without damping), for error bounds: (low, high), a certified solution, or a
            number that no eigenvalue is below. Matrices that are semidefinite by structure have their lower end known.
        max_products: all right-hand sides together, at least one for each; None: 10 D for each.
        block_size: right-hand sides in one block; None: up to 32.
        memory: bound for the memory of the whole process; None: current usage plus 80 % of the free memory.
        executor: who computes the products; see :func:`curvscope.eigsh`. None: this process.
        progress: see :data:`.progress.Progress`.

    Returns:
        ``.value`` in the form of B, ``.error_estimates``, ``.error_bounds`` (infinite where nothing proves one),
        ``.relative_errors``, ``.status``, ``.products``.

    Cost: a product a right-hand side and step; 4 D m^2 operations for m products of a block; memory: the m vectors of the
        basis in float64, for one block at a time.

    Raises:
        InvalidArgument: an operator that is not square, symmetric and real, a B of another size, an f that is not finite at an
            eigenvalue, a spectrum that is contradicted or another operator's, fewer products than right-hand sides.
            NotFinite: NaN in a product. OutOfBudget: two steps do not fit.
    Limits: bounds are for f that are smooth on the interval, whose largest magnitude is looked for on some 700 points. Where
        memory ends the space, the result is what was reached, and says so. Nothing is kept in a run.
    Source: Higham, Functions of Matrices (2008), chapter 13; Chen, Greenbaum, Musco and Musco (SIMAX 2022).

    >>> import curvscope as cs
    >>> A = torch.diag(torch.linspace(0, 2, 50, dtype=torch.float64))
    >>> found = cs.function(A, torch.ones(50, dtype=torch.float64), "exp", spectrum=(0, 2))
    >>> bool((found.value - A.diagonal().exp()).norm() <= found.error_bounds), found.converged
    (True, True)
    """
    operator = as_operator(operator)
    check_operator(operator)
    evaluated_by = function_of(f)
    known, proof = known_interval(operator, damping, spectrum)
    width = block_size or WIDEST_BLOCK
    made: list[FunctionResult] = []

    def applied(block: Tensor) -> Tensor:
        """Apply f to a (D,) or (D, n) tensor in the operator's dtype."""
        columns = block[:, None] if block.ndim == 1 else block
        check_right(columns, operator)
        count = columns.shape[1]
        most = _most_columns(operator.shape[0], count, min(width, max(1, count)), memory)
        budget = 10 * operator.shape[0] * max(1, count) if max_products is None else max_products
        if budget < count:
            raise InvalidArgument(f"max_products={budget}: {count} right-hand sides need at least {count}, one for each")
        parts = []
        with metered(operator, executor, progress) as meter, meter.stage("function of a matrix", 0):
            for start, stop in blocks(count, min(width, max(1, count))):
                left = budget - meter.products - (count - stop)  # one product is kept for each of the later columns
                parts.append(_one_block(meter, columns[:, start:stop].double(), damping, evaluated_by, known, tol, most, left))
            found = gathered(parts, columns, proof, tol, meter)
        made.append(found)
        value: Tensor = found.value.to(operator.dtype)
        return value[:, 0] if block.ndim == 1 else value

    value = in_its_form(operator, right, applied) if is_other_form(operator, right) else applied(plain_right(operator, right))
    return made[0].with_value(value)


def _one_block(
    meter: Meter, block: Tensor, damping: float, f: Function, known: Interval, tol: float, most: int, budget: int
) -> Parts:
    """Extend the space until the error is small twice in a row, or nothing is left to extend it with."""

    def multiply(columns: Tensor) -> Tensor:
        return meter.multiply(columns.to(meter.operator.dtype)).double() + damping * columns

    space = BlockLanczos(multiply, block, meter.operator.rounding)
    if space.is_exhausted:  # B is zero
        nothing = torch.zeros(block.shape[1], dtype=torch.float64, device="cpu")
        return Parts(torch.zeros_like(block), nothing, nothing, nothing, "")
    look, small, found, outcome = 1.0, 0, None, ""
    while True:
        if not space.is_exhausted and space.size + 2 * space.next_width > most:
            outcome = "memory"
        elif not space.is_exhausted and space.next_width > budget:
            outcome = "budget"
        elif not space.is_exhausted:
            budget -= space.next_width
            space.step()
        ended = bool(outcome) or space.is_exhausted
        if space.size and (ended or space.size >= look):
            found = space.evaluate(f, known)
            look = max(space.size + 1, LOOKS * space.size)
            small = small + 1 if _is_small(found, tol) else 0
        if ended or small == 2:
            break
    assert found is not None, "memory and products for one step were checked"
    reached = space.is_exhausted or _is_small(found, tol)
    value = space.combine(found.coefficients)
    return Parts(value, found.estimates, found.bounds, found.rounding, "" if reached else outcome)


def _is_small(found: Evaluated, tol: float) -> bool:
    sizes = torch.linalg.vector_norm(found.coefficients, dim=0)
    errors = torch.where(torch.isfinite(found.bounds), found.bounds, found.estimates)
    return bool((errors <= torch.maximum(tol * sizes, found.rounding / 2)).all())


def known_interval(operator: Operator, damping: float, spectrum: Any) -> tuple[Interval, str]:
    """Return an interval that holds the spectrum of A + damping I, and the words for its proof.

    Raises:
        InvalidArgument: something that tells nothing of a spectrum, or a solution of another operator.
    """
    low, high, proof = (damping if operator.semidefinite else -math.inf), math.inf, "the matrix is positive semidefinite"
    if isinstance(spectrum, Solution) and spectrum.certificate is not None:
        check_solution(operator, spectrum, "spectrum")
        certificate = spectrum.certificate
        values, rho = certificate.eigenvalues, float(certificate.rho[-1]) if len(certificate.eigenvalues) else 0.0
        above = (
            certificate.above if isinstance(certificate, EndCertificate) else certificate.tail.bound + certificate.noise.floor
        )
        below = certificate.below if isinstance(certificate, EndCertificate) else -above
        most, least = max([above, *values.tolist()]) + rho, min([below, *values.tolist()]) - rho
        unless = f", except with probability {certificate.tail.failure:g}" if certificate.tail.failure else ""
        return Interval(max(low, least + damping), most + damping), f"the certificate of {len(values)} pairs{unless}"
    is_pair = isinstance(spectrum, tuple | list) and len(spectrum) == 2
    ends = list(spectrum) if is_pair else [spectrum, math.inf]
    if spectrum is None:
        return Interval(low, high), proof if math.isfinite(low) else ""
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends) or not ends[0] <= ends[1]:
        raise InvalidArgument(
            f"spectrum={spectrum!r:.60}: pass (low, high), a certified solution, or a number that no eigenvalue is below"
        )
    return Interval(max(low, ends[0] + damping), ends[1] + damping), f"eigenvalues in [{ends[0]:g}, {ends[1]:g}], as you said"


def _most_columns(size: int, count: int, width: int, memory: int | str | None) -> int:
    """Return the number of basis vectors that fit beside B and the result.

    Raises:
        OutOfBudget: fewer than two blocks.
    """
    bound = default_memory() if memory is None else as_bytes(memory)
    beside = 2 * count + TEMPORARY * width + SLAB
    most = (bound - resident_bytes()) // (8 * size) - beside
    if most < 2 * width:
        needed = resident_bytes() + 8 * size * (beside + 2 * width)
        raise OutOfBudget(
            f"two steps of {width} right-hand sides need {as_text(needed)} in all, memory={as_text(bound)}: pass a smaller "
            "block_size, or fewer right-hand sides at a time"
        )
    return int(min(most, size + width))
