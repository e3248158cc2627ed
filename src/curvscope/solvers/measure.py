"""Rounds of independent products, and what can be read off them at once."""

from __future__ import annotations

import torch

from curvscope.errors import NotHermitian
from curvscope.sketches import TestMatrix
from curvscope.solvers.meter import Meter
from curvscope.solvers.recovery import asymmetry
from curvscope.tall import InMemory, TallMatrix, gram


def measure(meter: Meter, right: TestMatrix, count: int, block_size: int, *, adjoint: bool = False) -> InMemory:
    """A @ (columns 0..count of a test matrix), or A* @ them; (D, count).

    Cost: count products.
    """
    size = meter.operator.shape[1 if adjoint else 0]
    measured = InMemory.empty(size, count, meter.operator.dtype, meter.operator.device)
    multiply = meter.multiply_adjoint if adjoint else meter.multiply
    for start in range(0, count, block_size):
        stop = min(start + block_size, count)
        block = right.columns(start, stop)
        measured.write(start, multiply(block))
        if start == 0 and not adjoint and meter.operator.hermitian:
            check_hermitian(InMemory(block), measured.leading(stop))
    return measured


def check_hermitian(directions: TallMatrix, products: TallMatrix) -> None:
    r"""Raise NotHermitian if products Y = A X show that A is not Hermitian: X* Y must be.

    For random X the asymmetry of X\* Y is about that of A, ||A - A*||_F / ||A||_F. Costs no products; says nothing for one
    column of a real operator.
    """
    measured = asymmetry(gram(directions, products))
    allowed = allowed_asymmetry(directions.shape[0], directions.dtype)
    if measured > allowed:
        raise NotHermitian(
            f"the operator is not Hermitian: X'AX of {directions.shape[1]} random vectors differs from its adjoint by "
            f"{measured:.1e} of its norm (rounding explains {allowed:.0e}); use ssvd, or (A + A*)/2 if that is meant",
            measured,
        )


def allowed_asymmetry(size: int, dtype: torch.dtype) -> float:
    """What the rounding of products and sums over D entries may show: generous, as products of networks round too."""
    unit = torch.finfo(dtype).eps
    return max(10 * unit**0.5, 10 * unit * size**0.5)
