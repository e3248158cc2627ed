"""Blocks orthonormal in the inner product of a preconditioner: what block CG and block MINRES step with."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.tall import InMemory, gram, orthonormalize

DEPENDENT = 1e-13
"""Eigenvalue of a Gram matrix of unit columns up to which a direction is rounding: some units of double precision."""
CLEAN = 1e-4
"""Smallest eigenvalue of such a Gram matrix from which one round makes the columns orthonormal to ten digits."""


class Preconditioner(Protocol):
    """A symmetric positive definite M that stands for the inverse of the matrix of a system."""

    def apply(self, block: Tensor) -> Tensor:
        """M @ block, float64."""


class Orthonormal(NamedTuple):
    """W = basis @ factor, with basis* mapped = I and mapped = M basis.

    Attributes:
        basis: (D, r) float64.
        mapped: (D, r) float64, the same tensor without a preconditioner.
        factor: (r, n) float64, on the CPU.
    """

    basis: Tensor
    mapped: Tensor
    factor: Tensor


def orthonormal(block: Tensor, preconditioner: Preconditioner | None, noise: float | None = None) -> Orthonormal:
    """Return the orthonormal factor of a (D, n) block in the inner product of M; directions that are rounding are dropped.

    Args:
        block: W, float64.
        preconditioner: M; None: the identity.
        noise: size of a direction up to which it is rounding; None: of the block's own.

    Raises:
        InvalidArgument: M is not positive definite on the block.
    """
    if preconditioner is None:
        if block.shape[1] == 1:
            size = float(block.norm())
            unit = block / size if size > (noise or 0.0) else block[:, :0]
            return Orthonormal(unit, unit, torch.full((unit.shape[1], 1), size, dtype=torch.float64, device="cpu"))
        found = orthonormalize(InMemory(block.clone()), noise=noise)
        basis = found.basis.to_tensor()
        return Orthonormal(basis, basis, found.coefficients)
    basis, mapped = block, preconditioner.apply(block)
    factor = torch.eye(block.shape[1], dtype=torch.float64, device="cpu")
    for _ in range(2):
        turn, undo, least = _round(small_gram(basis, mapped), noise or 0.0)
        noise = None
        basis, mapped = basis @ turn.to(basis.device), mapped @ turn.to(basis.device)
        factor = undo @ factor
        if least > CLEAN:
            break
    return Orthonormal(basis, mapped, factor)


def _round(products: Tensor, noise: float) -> tuple[Tensor, Tensor, float]:
    """(turn, undo, least): W turn is orthonormal where W* M W = products, W = (W turn) undo; the least kept eigenvalue."""
    products = (products + products.T) / 2
    sizes = products.diagonal().clamp(min=0).sqrt()
    if bool((products.diagonal() < 0).any()):
        raise InvalidArgument(
            "the preconditioner is not positive definite: x' M x < 0 for a residual x; pass one that is, such as "
            "solution.low_rank(damping, positive=True)"
        )
    sizes = torch.where(sizes > 0, sizes, 1.0)
    values, vectors = torch.linalg.eigh(products / (sizes[:, None] * sizes))
    kept = (values > DEPENDENT) & ((vectors.T * sizes).square().sum(dim=1).sqrt() > noise)
    values, vectors = values[kept], vectors[:, kept]
    turn = vectors / sizes[:, None] * values.rsqrt()
    return turn, values.sqrt()[:, None] * (vectors.T * sizes), float(values.min()) if len(values) else 1.0


def small_gram(left: Tensor, right: Tensor) -> Tensor:
    """left* right of two blocks, float64 on the CPU."""
    return gram(InMemory(left), InMemory(right), double=True)
