"""What is wrong with a request is said before any product."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

from curvscope.errors import InvalidArgument, NotHermitian, UnfitOperator
from curvscope.operators import preflight
from curvscope.operators.base import Operator
from curvscope.solvers.results import check_which

MethodName = Literal["auto", "exact", "krylov", "seigh", "oversampled", "hmt", "singlepass", "nystrom"]
METHODS: tuple[str, ...] = get_args(MethodName)
SAME_METHOD = {
    **dict.fromkeys(["lanczos", "block_lanczos", "block_krylov", "thick_restart", "arpack", "irlm"], "krylov"),
    **dict.fromkeys(["dense", "full", "eigh", "direct", "lapack"], "exact"),
    **dict.fromkeys(["halko", "randomized", "rsvd", "two_pass"], "hmt"),
    "nystroem": "nystrom",
    "single_pass": "singlepass",
}
"""Other names of our methods."""
OTHER_METHOD = {
    **dict.fromkeys(
        ["sketch", "sketched", "random"], "'seigh' (single pass, the paper's), 'hmt' (two passes) or 'nystrom' (semidefinite)"
    ),
    **dict.fromkeys(["lobpcg", "power", "power_iteration", "subspace_iteration", "arnoldi", "jacobi_davidson"], "'krylov'"),
}
"""Methods that are not here, and what does their work."""


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
            f'this needs a real operator, got {operator.dtype}: eigsh with method="krylov" or "exact", seigh, svds and certify '
            "take complex ones"
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
        instead = OTHER_METHOD.get(method)
        raise InvalidArgument(
            f"method={method!r}: choose {f'{instead}; there are' if instead else 'one of'} {', '.join(METHODS)}"
        )


def canonical_method(name: str) -> Any:
    """Return our name of a method; a name that is none of its others as it is.

    >>> canonical_method("lanczos"), canonical_method("Krylov"), canonical_method("no_such")
    ('krylov', 'krylov', 'no_such')
    """
    plain = name.lower().replace("-", "_")
    return plain if plain in METHODS else SAME_METHOD.get(plain, name)


def check_tol(tol: float) -> None:
    """Raise InvalidArgument unless 0 <= tol < 1."""
    if not 0 <= tol < 1:
        raise InvalidArgument(f"tol={tol!r} is relative to |eigenvalue|: choose 0 <= tol < 1")
