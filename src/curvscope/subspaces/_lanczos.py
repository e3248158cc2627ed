"""The Lanczos recurrence for several starts in one block of products, without keeping its vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from curvscope.estimators import reach


@dataclass(frozen=True)
class Ritz:
    r"""Ritz values of the start w, and rows with which f(A) w on some rows is about ``rows @ f(values)``.

    Attributes:
        values: (m,) float64, the Ritz values.
        weights: (m,) float64, :math:`\|w\|^2 S_{1j}^2`, so that w* f(A) w is about sum_j weights_j f(values_j).
        rows: (r, m) float64, the chosen rows of :math:`V S \operatorname{diag}(\|w\| S_{1j})`; (0, m) when none were asked for.
        residuals: (m,) float64, :math:`|\beta_m S_{mj}|`: an eigenvalue lies that close to each Ritz value.
    """

    values: Tensor
    weights: Tensor
    rows: Tensor
    residuals: Tensor

    def share_above(self, thresholds: Tensor) -> Tensor:
        """(m, K) float64 in [0, 1]: how much of each Ritz value's weight belongs to eigenvalues of at least each magnitude.

        A Ritz value that has converged is an eigenvalue, and counts or does not. Another one stands for the part of the
        spectrum about it: its weight is spread evenly over its :func:`.reach`, as far as its residual and at most half-way to
        its neighbours. Without this the projector's edge would be off by half a cell, always to one side.
        """
        low, high = (ends.T for ends in reach(self.values[None], self.residuals[None]))
        covered = (high - torch.maximum(low, thresholds)).clamp(min=0) + (torch.minimum(high, -thresholds) - low).clamp(min=0)
        hard = (self.values.abs()[:, None] >= thresholds).double()
        width = high - low
        return torch.where(width > 0, (covered / width.clamp(min=torch.finfo(torch.float64).tiny)).clamp(max=1.0), hard)


@dataclass(frozen=True)
class Recurrence:
    """The coefficients of one start.

    Attributes:
        diagonal: (m,) float64.
        beside: (m,) float64, the entries next to the diagonal, and the norm of what is left after the last step.
        norm: of the start.
        rows: (r, m) float64, chosen rows of the Lanczos vectors.
    """

    diagonal: Tensor
    beside: Tensor
    norm: float
    rows: Tensor

    def ritz(self, steps: int | None = None) -> Ritz:
        """Ritz values after ``steps`` steps (default: all), without new products."""
        m = len(self.diagonal) if steps is None else min(steps, len(self.diagonal))
        beside = self.beside[: m - 1]
        values, S = torch.linalg.eigh(torch.diag(self.diagonal[:m]) + torch.diag(beside, 1) + torch.diag(beside, -1))
        first = self.norm * S[0]
        return Ritz(values, first.square(), (self.rows[:, :m] @ S) * first, (self.beside[m - 1] * S[-1]).abs())


def lanczos(
    multiply: Callable[[Tensor], Tensor],
    starts: Tensor,
    steps: int,
    *,
    rows: Tensor | None = None,
    reorthogonalize: bool = False,
) -> list[Recurrence]:
    """Run the recurrence from each column of ``starts``; the columns share products, not their spaces.

    A start whose space is exhausted stops by itself.

    Args:
        multiply: products with a real symmetric matrix, (D, b) to (D, b).
        starts: (D, b); overwritten.
        steps: m, at least 1.
        rows: which rows of the Lanczos vectors are wanted.
        reorthogonalize: against all earlier vectors, which are then kept. Without it converged Ritz values come several times,
            their weight shared out between them: sums over functions of them hold nevertheless.

    Cost: m blocks of products; memory: 3 blocks (D, b) and what the product takes, or m + 2 blocks.

    Source: Golub and Meurant (2010), Matrices, Moments and Quadrature; Druskin and Knizhnerman (1992) for rounding.
    """
    kept: list[Tensor] = []
    norms = _norms(starts)
    current, previous = starts.div_(_divisor(norms, starts)), torch.zeros_like(starts)
    diagonal, beside, seen = [], [], []
    last = torch.zeros_like(norms)
    scale = torch.zeros_like(norms)
    for step in range(steps):
        if rows is not None:
            seen.append(current[rows].double().cpu())
        if reorthogonalize:
            kept.append(current.clone())
        product = multiply(current)
        product = previous.mul_(-last.to(product)).add_(product)  # in the room of the vector that is done with
        alpha = _dots(current, product)
        product.addcmul_(current, alpha.to(product), value=-1)
        for _ in range(2 if reorthogonalize else 0):
            for vector in kept:
                product.addcmul_(vector, _dots(vector, product).to(product), value=-1)
        diagonal.append(alpha)
        last = _norms(product)
        scale = torch.maximum(scale, torch.maximum(alpha.abs(), last))
        last = torch.where(last > 10 * torch.finfo(product.dtype).eps * scale, last, 0.0)  # an invariant subspace: exhausted
        beside.append(last)
        if step + 1 < steps:
            product.div_(_divisor(last, product)).mul_((last > 0).to(product))
        previous, current = current, product
    samples = (
        torch.stack(seen, dim=1)
        if rows is not None
        else torch.empty(0, steps, starts.shape[1], dtype=torch.float64, device="cpu")
    )
    return [
        _recurrence(torch.stack(diagonal)[:, i], torch.stack(beside)[:, i], float(norms[i]), samples[:, :, i])
        for i in range(starts.shape[1])
    ]


def _recurrence(diagonal: Tensor, beside: Tensor, norm: float, rows: Tensor) -> Recurrence:
    """Up to where the space was exhausted."""
    ended = (beside[:-1] == 0).nonzero().flatten()
    made = int(ended[0]) + 1 if len(ended) else len(diagonal)
    return Recurrence(diagonal[:made], beside[:made], norm, rows[:, :made])


def _dots(a: Tensor, b: Tensor) -> Tensor:
    """(b,) float64 on the CPU: inner products column by column."""
    return torch.stack([x @ y for x, y in zip(a.unbind(1), b.unbind(1), strict=True)]).double().cpu()


def _norms(block: Tensor) -> Tensor:
    """(b,) float64 on the CPU."""
    norms: Tensor = torch.linalg.vector_norm(block, dim=0).double().cpu()
    return norms


def _divisor(norms: Tensor, like: Tensor) -> Tensor:
    return torch.where(norms > 0, norms, 1.0).to(like)
