"""What every operator must do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from curvscope.errors import CurvscopeError
from curvscope.operators.base import Operator
from curvscope.testing._close import raises, random, require, require_close

TOLERANCE = 1e3
"""Rounding units, relative to the largest entry of the product, within which products must agree."""

OTHER_DTYPE = {torch.float32: torch.float64, torch.float64: torch.float32}


def _allowed(product: torch.Tensor) -> float:
    largest = float(product.abs().max()) if product.numel() else 0.0
    return TOLERANCE * torch.finfo(product.dtype).eps * largest


def products_have_the_form_of_their_block(operator: Operator) -> None:
    """(n,) gives (m,), (n, b) gives (m, b), in the operator's dtype and on its device."""
    m, n = operator.shape
    for shape in ((n,), (n, 3), (n, 1)):
        product = operator @ random(n, 3, operator.dtype, operator.device)[:, : shape[1] if len(shape) > 1 else 1].reshape(
            shape
        )
        require(product.shape == (m, *shape[1:]), f"a block of shape {shape} gives {(m, *shape[1:])}")
        require(product.dtype == operator.dtype, "products have the operator's dtype")
        require(product.device.type == operator.device.type, "products lie on the operator's device")


def columns_do_not_know_of_each_other(operator: Operator) -> None:
    """A block's product is its columns' products."""
    block = random(operator.shape[1], 5, operator.dtype, operator.device)
    whole = operator @ block
    apart = torch.stack([operator @ column for column in block.T], dim=1)
    require_close(whole, apart, _allowed(whole), "the product of a block is the products of its columns")


def is_linear(operator: Operator) -> None:
    """A (x + c y) = A x + c A y, and A 0 = 0."""
    block = random(operator.shape[1], 2, operator.dtype, operator.device)
    x, y = operator @ block[:, 0], operator @ block[:, 1]
    mixed = operator @ (block[:, 0] - 0.5 * block[:, 1])
    require_close(mixed, x - 0.5 * y, _allowed(torch.stack([x, y])), "A (x - y/2) = A x - A y / 2")
    require(not bool((operator @ torch.zeros_like(block)).any()), "A 0 = 0")


def is_one_fixed_matrix(operator: Operator) -> None:
    """The same product twice gives the same bits or nearly so, also with another block in between; inputs stay as they are."""
    block = random(operator.shape[1], 3, operator.dtype, operator.device)
    before = block.clone()
    first = operator @ block
    operator @ random(operator.shape[1], 2, operator.dtype, operator.device, seed=1)
    require_close(operator @ block, first, _allowed(first), "the same product twice is the same")
    require(torch.equal(block, before), "the block that was multiplied is unchanged")
    require(operator.fingerprint == operator.fingerprint and bool(operator.fingerprint), "the fingerprint is fixed")


def is_hermitian_if_it_says_so(operator: Operator) -> None:
    """X* A X is Hermitian for operators that say they are."""
    if not operator.hermitian:
        return
    require(operator.shape[0] == operator.shape[1], "Hermitian operators are square")
    block = random(operator.shape[1], 4, operator.dtype, operator.device)
    product = operator @ block
    small = block.mH @ product
    allowed = TOLERANCE * torch.finfo(operator.dtype).eps * float(block.norm() * product.norm())
    require_close(small, small.mH, allowed, "X* A X is Hermitian")


def adjoint_fits(operator: Operator) -> None:
    """<A x, y> = <x, A* y>, for operators that have products with their adjoint."""
    m, n = operator.shape
    x = random(n, 3, operator.dtype, operator.device)
    y = random(m, 3, operator.dtype, operator.device, seed=1)
    try:
        back = operator.adjoint_matmul(y)
    except CurvscopeError:
        return
    ahead = operator @ x
    allowed = TOLERANCE * torch.finfo(operator.dtype).eps * float(ahead.norm() * y.norm())
    require_close(ahead.mH @ y, x.mH @ back, allowed, "<A x, y> = <x, A* y>")


def refuses_what_does_not_fit(operator: Operator) -> None:
    """Wrong lengths, dtypes and types are errors of ours, not wrong numbers."""
    n = operator.shape[1]
    like: dict[str, Any] = {"dtype": operator.dtype, "device": operator.device}
    require(raises(ValueError, lambda: operator @ torch.zeros(n + 1, **like)), "a vector of the wrong length is refused")
    require(raises(ValueError, lambda: operator @ torch.zeros(n, 1, 1, **like)), "a three-dimensional block is refused")
    block = torch.zeros(n, dtype=torch.int64, device=operator.device)
    require(raises(ValueError, lambda: operator @ block), "a block of integers is refused")
    if (other := OTHER_DTYPE.get(operator.dtype)) is not None:
        product = operator @ block.to(other)
        require(product.dtype == other, "a product has the precision of its block")
    require(raises(TypeError, lambda: operator @ [0.0]), "a list is refused")


OPERATOR_CHECKS: tuple[Callable[[Operator], None], ...] = (
    products_have_the_form_of_their_block,
    columns_do_not_know_of_each_other,
    is_linear,
    is_one_fixed_matrix,
    is_hermitian_if_it_says_so,
    adjoint_fits,
    refuses_what_does_not_fit,
)


def check_operator(operator: Operator) -> None:
    """All of :data:`OPERATOR_CHECKS`. Cost: about 40 products.

    Raises:
        AssertionError: the first that is violated.

    >>> from curvscope.operators import as_operator
    >>> check_operator(as_operator(torch.eye(4)))
    """
    for check in OPERATOR_CHECKS:
        check(operator)
