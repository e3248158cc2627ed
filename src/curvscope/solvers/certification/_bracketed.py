"""Eigenpairs until the interval of an overlap is narrow enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil
from typing import Any

import torch
from torch import Tensor

from curvscope.certificates import captured_mass, overlap_bracket
from curvscope.errors import InvalidArgument
from curvscope.solvers.results import Solution, Status
from curvscope.tall import orthogonality

MORE_PAIRS = 1.3
"""Pairs taken for each asked for, and again where the last k are too wide: the bracket looks beyond k."""
MOST_ROUNDS = 6
SMALLEST_TOL = {torch.float32: 1e-6, torch.float64: 1e-12}

Solve = Callable[[int, float, Solution | None], Solution]


def check_ranking(ranking: Any, size: int, rtol: float) -> Tensor:
    """The ranking's order, (D,).

    Raises:
        InvalidArgument: not a ranking of D parameters, or rtol out of range.
    """
    order = getattr(ranking, "order", None)
    if not isinstance(order, Tensor) or len(order) != size:
        raise InvalidArgument(
            f"ranking is of type {type(ranking).__name__}: pass a ranking of the operator's {size} parameters, such as "
            "cs.masks.by_magnitude(model)"
        )
    if not 0 < rtol < 1:
        raise InvalidArgument(f"rtol={rtol!r} is a half-width relative to the overlap: choose 0 < rtol < 1")
    return order


def until_bracketed(
    solve: Solve, certify: Callable[[Solution], Solution], k: int, order: Tensor, *, rtol: float, tol: float
) -> Solution:
    """Solve for more pairs, to smaller residuals, until the overlap of every k' <= k is known to a half-width of rtol of it.

    Args:
        solve: (pairs, tol, earlier solution or None) -> solution; continues from the earlier one.
        certify: puts a certificate on a solution.
        k: overlaps wanted.
        order: the ranking's.
        rtol: half-width over overlap.
        tol: of the first round.

    Returns:
        The last solution, with its certificate and **all pairs that were needed** (k or more); its status says how wide the
        widest interval is, and is "partly" when it is too wide. The stated failure probability is that of all rounds
        together: each looked at a bound of its own.
    """
    size = len(order)
    pairs, spent = min(size, ceil(MORE_PAIRS * k) + 2), 0
    previous: Solution | None = None
    widest, rounds = torch.inf, 0
    while rounds < MOST_ROUNDS:
        rounds += 1
        solution = previous = solve(pairs, tol, previous)
        certified = certify(solution)
        spent += certified.cost.certificate_products - solution.cost.certificate_products
        widths = half_widths(certified, order)[:k]
        wide = (widths > rtol).nonzero().flatten()
        floor = SMALLEST_TOL.get(solution.eigenvectors.dtype, 1e-6)
        stuck = tol <= floor and float(widths.max()) > 0.7 * widest
        if not len(wide) or stuck or not solution.status.converged:
            break
        widest = float(widths.max())
        tol = max(tol / 10, floor)
        if int(wide[-1]) >= k / MORE_PAIRS:
            pairs = min(size, ceil(MORE_PAIRS * pairs))
    cost = replace(certified.cost, certificate_products=solution.cost.certificate_products + spent)
    assert certified.certificate is not None
    tail = certified.certificate.tail
    proven = replace(certified.certificate, tail=replace(tail, failure=min(1.0, rounds * tail.failure)))
    return replace(certified, certificate=proven, status=_status(certified, widths, rtol), cost=cost, basis=solution.basis)


def half_widths(certified: Solution, order: Tensor) -> Tensor:
    """(K,) half-width of the overlap's interval over the overlap, for every k; infinite where the overlap is zero."""
    vectors = certified.eigenvectors
    captured = captured_mass(vectors.rows(order[: certified.k].to(vectors.device)))
    assert certified.certificate is not None
    lower, upper = overlap_bracket(captured, certified.certificate, defect=orthogonality(vectors, spectral=True))
    value = captured.diagonal() / torch.arange(1, certified.k + 1, device="cpu")
    return ((upper - lower) / (2 * value)).nan_to_num(nan=torch.inf)


def _status(certified: Solution, widths: Tensor, rtol: float) -> Status:
    wide = (widths > rtol).nonzero().flatten()
    if not len(wide):
        return Status(
            certified.status.code,
            f"{certified.status.text}; every overlap up to k = {len(widths)} is known within {float(widths.max()):.1e} of it",
        )
    if certified.status.converged:
        why = "magnitudes nearly equal there; raise rtol, or use cs.certify with this operator in dtype=torch.float64"
    else:
        why = certified.status.text
    shown = ", ".join(str(int(i) + 1) for i in wide[:5]) + (", ..." if len(wide) > 5 else "")
    return Status(
        "partly",
        f"the overlap's interval is wider than rtol={rtol:g} at {len(wide)} of {len(widths)} k ({shown}; widest "
        f"{float(widths[wide].max()):.1e}): {why}",
    )
