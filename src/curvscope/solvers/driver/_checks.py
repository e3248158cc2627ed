"""What is wrong with a request is said before any product."""

from __future__ import annotations

import math

from curvscope.errors import InvalidArgument, NotHermitian, UnfitOperator
from curvscope.operators import preflight
from curvscope.operators.base import Operator
from curvscope.solvers.results import check_which

METHODS = ("auto", "exact", "krylov", "seigh", "oversampled", "hmt", "singlepass", "nystrom")


def check_operator(operator: Operator, *, real: bool = True) -> None:
    """Raise InvalidArgument unless it is square, Hermitian, and (unless told otherwise) real.

    Operators whose symmetry was only assumed pass; their first products are looked at, see :class:`.symmetry.ProductsCheck`.
    """
    m, n = operator.shape
    if m != n:
        raise InvalidArgument(f"this needs a square operator, got {m} x {n}; singular values (svds, ssvd) take any shape")
    if not m:
        raise InvalidArgument("the operator is 0 x 0: there is nothing to measure")
    if not operator.hermitian:
        measured = getattr(operator, "asymmetry", math.nan)
        differs = "" if math.isnan(measured) else f" (A and its adjoint differ by {measured:.1e} of the largest entry)"
        raise NotHermitian(
            f"this needs a Hermitian operator, and this one is not{differs}: use svds or ssvd for singular values, or pass "
            "(A + A.T) / 2 if that is meant",
            measured,
        )
    if real and operator.dtype.is_complex:
        raise InvalidArgument(
            f'this needs a real operator, got {operator.dtype}: eigsh with method="krylov" or "exact", and seigh, take others'
        )


def check_fit(operator: Operator) -> None:
    """Raise UnfitOperator if a curvature operator fails the short preflight: 3 products and two passes over the data.

    That its derivatives are verified comes first, and is not skipped by ``preflight=False``: the first product does it.

    Other operators are taken at their word.
    """
    operator = operator.view()
    if operator.derivatives() is not None:  # which refuses by itself, in words of its own
        found = preflight(operator, short=True)
        if not found.passed:
            failed = "; ".join(f"{check.name}: {check.cause} ({check.remedy})" for check in found.checks if not check.passed)
            raise UnfitOperator(f"the operator is not one fixed symmetric matrix. {failed}. preflight=False skips this check")


def check_k(k: int, size: int) -> None:
    """Raise InvalidArgument unless 1 <= k <= D."""
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= size:
        raise InvalidArgument(f"k={k!r}: choose an integer from 1 to D = {size}")


def check_request(k: int, size: int, *, which: str, method: str, tol: float) -> None:
    """Everything about a request that can be told before there is an operator.

    Raises:
        InvalidArgument: the first of k, which, method, tol that cannot work.
    """
    check_k(k, size)
    check_which(which)
    check_tol(tol)
    if method not in METHODS:
        raise InvalidArgument(f"method={method!r}: choose one of {', '.join(METHODS)}")


def check_tol(tol: float) -> None:
    """Raise InvalidArgument unless 0 <= tol < 1."""
    if not 0 <= tol < 1:
        raise InvalidArgument(f"tol={tol!r} is relative to |eigenvalue|: choose 0 <= tol < 1")
