"""Many Lanczos recurrences side by side: one block of products a step, each with its own tridiagonal matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

WEIGHTLESS = 1e-24
"""Weight that rounding alone gives; a random vector has about 1/D of its square along each eigenvector."""


@dataclass(frozen=True)
class Quadrature:
    r"""Gauss quadratures of the spectral measures of q unit vectors v: v* f(A) v is about sum_i w_i f(x_i).

    Attributes:
        nodes: float64 (q, m), ascending in each row.
        weights: float64 (q, m), each row sums to 1; 0 where a recurrence ended early, and for further copies of a multiple
            eigenvalue, which only rounding brings in.
        radii: float64 (q, m): an eigenvalue lies within this of the node (the residual norm of its Ritz pair).
        basis: (q, m, D), the Lanczos vectors; None where they were not kept.
        made: steps that each recurrence made before its space was exhausted, (q,).
        rotations: float64 (q, m, m): its columns make the Ritz vectors of the nodes.
    """

    nodes: Tensor
    weights: Tensor
    radii: Tensor
    basis: Tensor | None
    made: Tensor
    rotations: Tensor

    def ritz_vectors(self, index: Tensor) -> Tensor:
        """(q, D, j): for each recurrence the Ritz vectors of its nodes ``index``, (q, j). Cost: 2 D q m j operations."""
        assert self.basis is not None
        columns = self.rotations.gather(2, index[:, None, :].expand(-1, self.rotations.shape[1], -1))
        return self.basis.transpose(1, 2) @ columns.to(self.basis.device)


def lanczos(
    multiply: Callable[[Tensor], Tensor], starts: Tensor, steps: int, *, unit: float, reorthogonalize: bool = True
) -> Quadrature:
    """Run ``steps`` steps of Lanczos from each column of ``starts``, all in float64.

    Args:
        multiply: products with a Hermitian A, (D, b) to (D, b), float64.
        starts: (D, q), columns of norm 1 (they need not be orthogonal to one another).
        steps: m.
        unit: rounding of the products: what is left of a product up to 10 units of its norm ends a recurrence.
        reorthogonalize: twice against all earlier vectors of the same recurrence. Without, copies of converged nodes come up:
            harmless for masses, not for counting single eigenvalues.

    Cost: q m products in m blocks; memory: q (m + 1) vectors in float64, 4 q without re-orthogonalisation; 4 D q m^2 operations
        with it.
    """
    size, count = starts.shape
    diagonal = torch.zeros(count, steps, dtype=torch.float64, device="cpu")
    beside = torch.zeros(count, steps, dtype=torch.float64, device="cpu")
    made = torch.full((count,), steps, device="cpu")
    basis = torch.zeros(count, steps if reorthogonalize else 0, size, dtype=torch.float64, device=starts.device)
    vectors, before = starts.T.clone(), torch.zeros_like(starts.T)
    active = torch.arange(count, device="cpu")
    for step in range(steps):
        product = multiply(vectors[active].T).T
        scale = product.norm(dim=1)
        here = vectors[active]
        along = (here * product).sum(dim=1)
        diagonal[active, step] = along.cpu()
        rest = product - along[:, None] * here
        if step:
            rest -= beside[active, step - 1, None].to(rest.device) * before[active]
        if reorthogonalize:
            basis[active, step] = here
            _orthogonalize(rest, basis[:, : step + 1], active)
        norms = rest.norm(dim=1)
        beside[active, step] = norms.cpu()
        alive = (norms > 10 * unit * scale).cpu()
        made[active[~alive]] = step + 1
        beside[active[~alive], step] = 0
        before[active] = here
        active, rest, norms = active[alive], rest[alive], norms[alive]
        if not len(active):
            break
        vectors[active] = rest / norms[:, None]
    return _quadrature(diagonal, beside, made, basis if reorthogonalize else None, unit)


def _orthogonalize(rest: Tensor, basis: Tensor, active: Tensor) -> None:
    """In place and twice, rows of ``rest`` against the rows of their own basis."""
    for row, own in enumerate(active.tolist()):
        for _ in range(2):
            rest[row] -= basis[own].T @ (basis[own] @ rest[row])


def _quadrature(diagonal: Tensor, beside: Tensor, made: Tensor, basis: Tensor | None, unit: float) -> Quadrature:
    count, steps = diagonal.shape
    rotations = torch.zeros(count, steps, steps, dtype=torch.float64, device="cpu")
    nodes, weights, radii = (torch.zeros(count, steps, dtype=torch.float64, device="cpu") for _ in range(3))
    for row in range(count):
        m = int(made[row])
        off = beside[row, : m - 1]
        matrix = torch.diag(diagonal[row, :m]) + torch.diag(off, 1) + torch.diag(off, -1)
        values, vectors = torch.linalg.eigh(matrix)
        _gather_copies(values, vectors, 100 * unit * float(values.abs().max()))
        nodes[row, :m], weights[row, :m] = values, vectors[0].square()
        radii[row, :m] = float(beside[row, m - 1]) * vectors[-1].abs()
        nodes[row, m:], rotations[row, :m, :m] = values[-1], vectors
    weights[weights < WEIGHTLESS] = 0
    return Quadrature(nodes, weights, radii, basis, made, rotations)


def _gather_copies(values: Tensor, vectors: Tensor, noise: float) -> None:
    """In place: of nodes that rounding cannot tell apart, the last gets all the weight of the first Lanczos vector.

    Further copies of a multiple eigenvalue come in by rounding, and eigenvectors of the small matrix mix them at will.
    """
    start = 0
    for end in range(1, len(values) + 1):
        if end < len(values) and float(values[end] - values[end - 1]) <= noise:
            continue
        if end - start > 1 and float(vectors[0, start:end].norm()) > 0:
            turn = torch.linalg.qr(vectors[0, start:end, None], mode="complete").Q
            vectors[:, start:end] = vectors[:, start:end] @ turn.flip(1)
        start = end
