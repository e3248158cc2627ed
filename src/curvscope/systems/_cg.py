"""Block conjugate gradients: several right-hand sides share one Krylov space."""

from __future__ import annotations

import torch
from torch import Tensor

from curvscope.systems._inner import DEPENDENT, Preconditioner, orthonormal, small_gram
from curvscope.systems._iteration import Iterated, Multiply, Outcome, column_norms, within_reach

NOISE = 10
"""Units of rounding, relative to the norm of the products, up to which a Rayleigh quotient has no sign."""


def block_cg(
    multiply: Multiply, right: Tensor, targets: Tensor, budget: int, preconditioner: Preconditioner | None, unit: float
) -> Iterated:
    r"""Solve A X = B for a positive definite A, until every column's residual norm is at most its target.

    The residual is held as Q C with Q orthonormal in the inner product of M, which keeps the block well conditioned when
    columns converge at different speeds or become dependent (Dubrulle's CGrQ):

    .. math:: X \mathrel{+}= P (P^* A P)^{-1} C, \quad Q' S = Q - A P (P^* A P)^{-1}, \quad C' = S C, \quad P' = M Q' + P S^*

    Args:
        multiply: products with A.
        right: B, (D, n) float64.
        targets: (n,) float64.
        budget: most products.
        preconditioner: M; None: the identity.
        unit: rounding of the products.

    Cost: r products a step, r <= n the rank of the residuals; memory: 5 blocks, 6 with a preconditioner.
    Source: O'Leary (1980); Dubrulle, ETNA 12 (2001).
    """
    found = Iterated(torch.zeros_like(right), "done")
    basis, mapped, coefficients = orthonormal(right, preconditioner)
    directions = mapped.clone()
    while basis.shape[1] and bool(
        (_norms(basis, coefficients, preconditioner) > within_reach(targets, found.x, max(found.high, 0.0), unit)).any()
    ):
        if budget < directions.shape[1]:
            found.outcome = "budget"
            return found
        budget -= directions.shape[1]
        products = multiply(directions)
        inverse, trouble = _inverse(found, directions, products, unit)
        if trouble is not None:
            found.outcome = trouble
            return found
        found.x += directions @ (inverse @ coefficients).to(directions.device)
        basis, mapped, turn = orthonormal(basis - products @ inverse.to(products.device), preconditioner, NOISE * unit)
        coefficients = turn @ coefficients
        directions = mapped + directions @ turn.T.to(directions.device)
    return found


def _norms(basis: Tensor, coefficients: Tensor, preconditioner: Preconditioner | None) -> Tensor:
    return column_norms(basis, coefficients, is_orthonormal=preconditioner is None)


def _inverse(found: Iterated, directions: Tensor, products: Tensor, unit: float) -> tuple[Tensor, Outcome | None]:
    """(P* A P)^{-1} on the CPU, and the trouble that the smallest Rayleigh quotient tells of; directions that depend are left.

    Rayleigh quotients of A in an orthonormal basis of the directions are noted: they lie in the range of A's spectrum.
    """
    inner, projected = small_gram(directions, directions), small_gram(directions, products)
    sizes = inner.diagonal().sqrt()
    values, vectors = torch.linalg.eigh(inner / (sizes[:, None] * sizes))
    kept = values > DEPENDENT
    turn = vectors[:, kept] / sizes[:, None] * values[kept].rsqrt()
    core = turn.T @ projected @ turn
    quotients, axes = torch.linalg.eigh((core + core.T) / 2)
    least, largest = float(quotients[0]), float(quotients[-1])
    found.low, found.high = min(found.low, least), max(found.high, largest)
    noise = NOISE * unit * max(float((torch.linalg.vector_norm(products, dim=0).cpu() / sizes).max()), found.high)
    if least <= noise:
        return inner, "indefinite" if least < -noise else "singular"
    axes = turn @ axes
    return (axes / quotients) @ axes.T, None
