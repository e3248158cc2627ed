"""What the sketched eigensolvers share: checks before any product, and the way from a core to pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.operators import as_operator
from curvscope.operators.base import Operator
from curvscope.sketches import check_kind
from curvscope.solvers.driver import Pairs, check_operator
from curvscope.solvers.results import check_which, wanted
from curvscope.tall import TallMatrix, multiply

ADVICE = 'a sketch does not iterate: judge each pair by its residual; use method="krylov" for more accuracy'


def hermitian_request(operator: Any, *, num_outer: int, num_inner: int, k: int | None, which: str, sketch: str) -> Operator:
    """The operator, after everything that can be told without a product was looked at.

    Raises:
        InvalidArgument: sizes out of order, unknown names, an operator that is not square or not Hermitian, a complex test
            matrix for a real operator.
    """
    operator = as_operator(operator)
    check_operator(operator, real=False)
    check_which(which)
    check_kind(sketch, operator.dtype)
    check_sizes(operator.shape[0], num_outer, num_inner, num_outer if k is None else k)
    return operator


def check_sizes(size: int, num_outer: int, num_inner: int, k: int) -> None:
    """Raise InvalidArgument unless 1 <= k <= num_outer <= num_inner <= D."""
    if not 1 <= num_outer <= num_inner <= size:
        raise InvalidArgument(
            f"num_outer={num_outer} and num_inner={num_inner} with D = {size}: need 1 <= num_outer <= num_inner <= D"
        )
    if not 1 <= k <= num_outer:
        raise InvalidArgument(f"k={k}: a sketch with num_outer={num_outer} gives 1 to {num_outer} pairs")


def pairs_of_core(
    basis: TallMatrix, core: Tensor, *, k: int | None, which: str, diagnostics: dict[str, float], advice: str = ADVICE
) -> Pairs:
    """The wanted eigenpairs of Q C Q*, all of them for k = None. Cost: 2 D r k operations."""
    values, rotation = torch.linalg.eigh(core)
    chosen = wanted(values, len(values) if k is None else k, which)
    vectors = multiply(basis, rotation[:, chosen])
    advice = advised(advice, len(chosen), k)
    return Pairs(values[chosen], vectors, tol=None, advice=advice, diagnostics=diagnostics)


def advised(advice: str, found: int, k: int | None) -> str:
    """The advice, and that there are fewer pairs than were asked for, where there are."""
    if k is None or found >= k:
        return advice
    return (
        f"{found} of the {k} asked for: the products have {found} directions beyond rounding, all others are 0 to it; {advice}"
    )
