"""The block-triangular part of a Hermitian operator, as an operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.operators import as_operator, combined
from curvscope.operators.base import Operator
from curvscope.operators.fingerprint import fingerprint
from curvscope.solvers.driver import check_operator
from curvscope.system import checked


class BlockTriangular(Operator):
    """Blocks on and below (or above) the diagonal of a Hermitian A; build it with :func:`block_triangular`."""

    hermitian = False

    def __init__(self, inner: Operator, places: Sequence[slice], *, lower: bool, diagonal: bool) -> None:
        self.inner, self.places, self.lower, self.diagonal = inner, tuple(places), lower, diagonal
        self.shape, self.dtype, self.device = inner.shape, inner.dtype, inner.device

    def _apply(self, block: Tensor) -> Tensor:
        return self._triangle(block, lower=self.lower)

    def _apply_adjoint(self, block: Tensor) -> Tensor:
        return self._triangle(block, lower=not self.lower)

    def _triangle(self, block: Tensor, *, lower: bool) -> Tensor:
        total = torch.zeros_like(block)
        for place in self.places:
            if not bool(block[place].any()):
                continue
            wide = torch.zeros_like(block)
            wide[place] = block[place]
            product = self.inner._apply(wide)
            if lower:
                reach = slice(place.start if self.diagonal else place.stop, None)
            else:
                reach = slice(0, place.stop if self.diagonal else place.start)
            total[reach] += product[reach]
        return total

    def _fingerprint(self) -> str:
        ends = [(place.start, place.stop) for place in self.places]
        return fingerprint("block triangular", self.inner.fingerprint, ends, self.lower, self.diagonal)

    def _identity(self) -> dict[str, Any]:
        ends = [(place.start, place.stop) for place in self.places]
        return combined("BlockTriangular", [self.inner], ends=ends, lower=self.lower, diagonal=self.diagonal)


@checked
def block_triangular(
    operator: Any, *, lower: bool = True, diagonal: bool = True, blocks: Sequence[int] | None = None
) -> BlockTriangular:
    """The block-lower (or upper) triangular part of a Hermitian operator; its products are exact.

    Args:
        operator: D x D; anything that :func:`curvscope.as_operator` takes.
        lower: which part.
        diagonal: whether the diagonal blocks belong to it.
        blocks: sizes of the blocks, which add up to D; default: one for each parameter tensor.

    Returns:
        An operator that is not Hermitian, with products and adjoint products.

    Cost: for a vector, one product with A for each block in which it is not zero.

    Raises:
        InvalidArgument: blocks that do not add up to D, or none given and the operator has no named parameters.

    >>> A = torch.arange(9.0).reshape(3, 3); A = A + A.T
    >>> block_triangular(A, blocks=[1, 2]) @ torch.tensor([1.0, 0.0, 1.0])
    tensor([ 0., 16., 24.])
    """
    operator = as_operator(operator)
    check_operator(operator)
    size = operator.shape[0]
    if blocks is None:
        if getattr(operator, "parameters", None) is None:
            raise InvalidArgument("this operator has no named parameters: pass the sizes of the blocks")
        places = list(operator.parameters.slices.values())
    else:
        if any(length < 1 for length in blocks) or sum(blocks) != size:
            raise InvalidArgument(f"blocks={list(blocks)}: pass positive sizes that add up to D = {size}")
        ends = torch.tensor(blocks, device="cpu").cumsum(0).tolist()
        places = [slice(end - length, end) for end, length in zip(ends, blocks, strict=True)]
    return BlockTriangular(operator, places, lower=lower, diagonal=diagonal)
