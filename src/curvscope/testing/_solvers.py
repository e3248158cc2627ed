"""What every eigensolver must do, at its least: on operators of low rank all of them are exact."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, NotFinite
from curvscope.operators import as_operator
from curvscope.operators.base import Operator
from curvscope.solvers import Solution
from curvscope.testing._close import raises, random, require, require_close

Solve = Callable[[Any, int], Solution]
"""``solve(operator, k)``: k pairs, largest magnitude first."""

SIZE = 120


def low_rank(values: list[float], *, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(A, U): a dense matrix of SIZE rows with these eigenvalues, else 0, and its eigenvectors."""
    U = torch.linalg.qr(random(SIZE, len(values), torch.float64, torch.device("cpu"), seed)).Q
    A = (U * torch.tensor(values, dtype=torch.float64, device="cpu")) @ U.T
    return ((A + A.T) / 2).to(dtype), U


def _exact_on(values: list[float], solve: Solve, dtype: torch.dtype) -> None:
    """Values, spaces of equal eigenvalues, orthonormality and residuals of a low-rank operator."""
    A, U = low_rank(values, dtype=dtype)
    k, scale, unit = len(values), abs(values[0]), torch.finfo(dtype).eps
    solution = solve(A, k)
    V = solution.eigenvectors.to_tensor().double()
    expected = torch.tensor(values, dtype=torch.float64, device="cpu")
    require_close(solution.eigenvalues.abs(), expected.abs(), 1e4 * unit * scale, "magnitudes, largest first")
    found, true = solution.eigenvalues.sort().values, expected.sort().values
    require_close(found, true, 1e4 * unit * scale, "signed values")
    require_close(V.T @ V, torch.eye(k, dtype=torch.float64, device="cpu"), 100 * unit, "eigenvectors are orthonormal")
    for value in sorted(set(values)):
        cluster, same = U[:, expected == value], V[:, (solution.eigenvalues - value).abs() < 1e-3 * scale]
        require(cluster.shape == same.shape, f"the eigenvalue {value:g} has its multiplicity")
        missed = cluster - same @ (same.T @ cluster)
        require(float(missed.norm()) <= 1e5 * unit, f"the eigenspace of {value:g} (off by {float(missed.norm()):.1e})")
    residuals = (A.double() @ V - V * solution.eigenvalues).norm(dim=0)
    require_close(solution.residual_norms, residuals, 1e3 * unit * scale, "residuals are those of the returned pairs")


def finds_plus_minus_pairs(solve: Solve) -> None:
    """Eigenvalues x and -x keep their own vectors."""
    _exact_on([3.0, -3.0, 2.0, -2.0, 1.0, -1.0], solve, torch.float64)


def finds_clusters(solve: Solve) -> None:
    """Multiple eigenvalues keep their multiplicity and space."""
    _exact_on([5.0, 5.0, 5.0, 2.0, 2.0, 1.0], solve, torch.float64)


def finds_tiny_scales(solve: Solve) -> None:
    """No threshold is absolute."""
    _exact_on([5e-13, 3e-13, -2e-13, 1e-13], solve, torch.float64)


def works_in_single_precision(solve: Solve) -> None:
    """Single-precision operators give single-precision vectors and values right to its rounding."""
    _exact_on([5.0, -3.0, 2.0, 1.0], solve, torch.float32)


def returns_less_than_it_has(solve: Solve) -> None:
    """K below the rank gives the k largest magnitudes."""
    A, _ = low_rank([5.0, -4.0, 1.0])
    require_close(
        solve(A, 2).eigenvalues,
        torch.tensor([5.0, -4.0], dtype=torch.float64, device="cpu"),
        1e-9,
        "the two largest magnitudes",
    )


def repeats_itself(solve: Solve) -> None:
    """The same call gives the same bits; the largest entry of every vector is positive; history is recorded."""
    A, _ = low_rank([5.0, -4.0, 3.0])
    one, other = solve(A, 3), solve(A, 3)
    V = one.eigenvectors.to_tensor()
    require(torch.equal(V, other.eigenvectors.to_tensor()), "the same call gives the same bits")
    require(bool((V.gather(0, V.abs().argmax(0, keepdim=True)) > 0).all()), "the largest entry of a vector is positive")
    require(one.cost.products > 0 and one.cost.certificate_products >= 3, "products are counted")
    require(one.provenance["fingerprint"] == as_operator(A).fingerprint, "the operator's fingerprint is recorded")
    require(bool(str(one.status)) and "3 eigenpairs" in str(one), "status and table can be read")


def survives_the_zero_operator(solve: Solve) -> None:
    """The zero matrix has eigenvalue 0 and no surprises."""
    values = solve(torch.zeros(SIZE, SIZE, dtype=torch.float64, device="cpu"), 1).eigenvalues
    require(not bool(values.any()), "the zero matrix has eigenvalue 0")


def refuses_nonsense(solve: Solve) -> None:
    """Not square, k out of range, NaN in a product."""
    A, _ = low_rank([5.0, -4.0, 3.0])
    for matrix, k in ((A[:, :-1], 1), (A, 0), (A, SIZE + 1)):
        require(raises(InvalidArgument, partial(solve, matrix, k)), f"{tuple(matrix.shape)} with k={k} is refused")
    require(raises(NotFinite, lambda: solve(_WithNan(), 2)), "a product with NaN in it is an error")


class _WithNan(Operator):
    shape, dtype, device, hermitian = (SIZE, SIZE), torch.float64, torch.device("cpu"), True

    def _apply(self, block: Tensor) -> Tensor:
        return torch.full_like(block, float("nan"))

    def _fingerprint(self) -> str:
        return "nan"


SOLVER_CHECKS: tuple[Callable[[Solve], None], ...] = (
    finds_plus_minus_pairs,
    finds_clusters,
    finds_tiny_scales,
    works_in_single_precision,
    returns_less_than_it_has,
    repeats_itself,
    survives_the_zero_operator,
    refuses_nonsense,
)


def check_solver(solve: Solve) -> None:
    """All of :data:`SOLVER_CHECKS` for ``solve(operator, k)``.

    Raises:
        AssertionError: the first that is violated.

    >>> from curvscope.solvers import eigsh
    >>> check_solver(lambda operator, k: eigsh(operator, k, method="exact"))
    """
    for check in SOLVER_CHECKS:
        check(solve)
