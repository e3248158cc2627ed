"""The Lanczos recurrence from several starts that share blocks of products, not their spaces.

Traces and densities need the quadrature of each start by itself. Functions of a matrix on a block profit from one common
space: :mod:`.systems._block_lanczos`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from curvscope.tall import small_dtype

ROUNDINGS = 10
"""Rounding units of the largest product so far up to which what is left of a product ends a recurrence."""


@dataclass(frozen=True)
class Recurrence:
    r"""Coefficients of the recurrence from one start: :math:`A V = V T + \beta_m v_{m+1} e_m^T`, V (D, m) orthonormal.

    Attributes:
        diagonal: (m,) float64, of T.
        beside: (m,) float64: the entries next to the diagonal of T, and the norm of what is left after the last step. That is 0
            where the space of the start was exhausted.
        norm: of the start.
        rows: (r, m), chosen rows of V in double precision; (0, m) where none were asked for.
        basis: (m, D), the columns of V as rows; None where they were not kept.
    """

    diagonal: Tensor
    beside: Tensor
    norm: float
    rows: Tensor
    basis: Tensor | None = None

    def matrix(self, steps: int | None = None) -> Tensor:
        """T after ``steps`` steps (None: all), (m, m) float64."""
        m = len(self.diagonal) if steps is None else min(steps, len(self.diagonal))
        beside = self.beside[: m - 1]
        return torch.diag(self.diagonal[:m]) + torch.diag(beside, 1) + torch.diag(beside, -1)


def lanczos(
    multiply: Callable[[Tensor], Tensor],
    starts: Tensor,
    steps: int,
    *,
    unit: float | None = None,
    rows: Tensor | None = None,
    reorthogonalize: bool = False,
) -> list[Recurrence]:
    """Run the recurrence from each column of ``starts``; one whose space is exhausted stops by itself.

    Args:
        multiply: products with a Hermitian A, (D, b) to (D, b) of the same dtype.
        starts: (D, b); they need not be orthogonal to one another. Overwritten.
        steps: m, at least 1.
        unit: rounding of the products, relative; None: that of their dtype.
        rows: places of the rows of V that are wanted.
        reorthogonalize: twice against all earlier vectors of the same start, which are then kept. Without it copies of
            converged Ritz values come up, with their weight shared out between them: sums over functions of them hold
            nevertheless, and single eigenvalues cannot be counted.

    Returns:
        A :class:`Recurrence` for each start.

    Cost: m blocks of products, of those starts that have not stopped; memory: 3 blocks (D, b) and what the product takes, and
        b m vectors with ``reorthogonalize``, which takes 8 D b m^2 operations.

    Source: Golub and Meurant (2010), Matrices, Moments and Quadrature; Paige (1972) for the order of the operations;
        Druskin and Knizhnerman (1992) for rounding.

    >>> A = torch.diag(torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64))
    >>> found = lanczos(lambda block: A @ block, torch.ones(3, 1, dtype=torch.float64), 3)[0]
    >>> [round(value, 6) for value in torch.linalg.eigvalsh(found.matrix()).tolist()]
    [1.0, 2.0, 3.0]
    """
    size, count = starts.shape
    unit = torch.finfo(starts.dtype).eps if unit is None else unit
    norms = _norms(starts)
    current, previous = starts.div_(torch.where(norms > 0, norms, 1.0).to(starts)), torch.zeros_like(starts)
    diagonal, beside = (torch.zeros(count, steps, dtype=torch.float64, device="cpu") for _ in range(2))
    made = torch.full((count,), steps, device="cpu")
    seen = torch.zeros(0 if rows is None else len(rows), steps, count, dtype=small_dtype(starts.dtype), device="cpu")
    basis = torch.zeros(count, steps if reorthogonalize else 0, size, dtype=starts.dtype, device=starts.device)
    active, before, scale = torch.arange(count, device="cpu"), torch.zeros_like(norms), torch.zeros_like(norms)
    for step in range(steps):
        if rows is not None:
            seen[:, step, active] = current[rows].to(seen)
        if reorthogonalize:
            basis[active.to(basis.device), step] = current.mT
        product = multiply(current)
        product = previous.mul_(-before.to(product)).add_(product)  # in the room of the vector that is done with
        along = _inner(current, product)
        product.addcmul_(current, along.to(product), value=-1)
        if reorthogonalize:
            _orthogonalize(product, basis[:, : step + 1], active)
        rest = _norms(product)
        scale = torch.maximum(scale, (along.square() + before.square() + rest.square()).sqrt())  # of A times the vector
        alive = rest > ROUNDINGS * unit * scale
        diagonal[active, step], beside[active, step] = along, torch.where(alive, rest, 0.0)
        made[active[~alive]] = step + 1
        if not bool(alive.any()) or step + 1 == steps:
            break
        if not bool(alive.all()):
            kept = alive.to(product.device)
            product, current = product.mT[kept].mT, current.mT[kept].mT  # columns stay contiguous
            active, rest, scale = active[alive], rest[alive], scale[alive]
        previous, current, before = current, product.div_(rest.to(product)), rest
    return [
        Recurrence(
            diagonal[row, :m], beside[row, :m], float(norms[row]), seen[:, :m, row], basis[row, :m] if reorthogonalize else None
        )
        for row, m in enumerate(made.tolist())
    ]


def _orthogonalize(block: Tensor, basis: Tensor, active: Tensor) -> None:
    """In place and twice, each column of a block against the rows of its own basis."""
    for column, own in enumerate(active.tolist()):
        for _ in range(2):
            block[:, column] -= basis[own].mT @ (basis[own].conj() @ block[:, column])


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """(b,) float64 on the CPU: real parts of the inner products, column by column."""
    return torch.stack([torch.vdot(x, y).real for x, y in zip(left.unbind(1), right.unbind(1), strict=True)]).double().cpu()


def _norms(block: Tensor) -> Tensor:
    """(b,) float64 on the CPU."""
    norms: Tensor = torch.linalg.vector_norm(block, dim=0).double().cpu()
    return norms
