"""Gauss quadratures of spectral measures, from Lanczos runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curvscope.measurement import Recurrence

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
        bases: q times (m, D), the Lanczos vectors, fewer where a space was exhausted; empty where they were not kept.
        rotations: float64 (q, m, m): its columns make the Ritz vectors of the nodes.
    """

    nodes: Tensor
    weights: Tensor
    radii: Tensor
    bases: list[Tensor]
    rotations: Tensor

    def ritz_vectors(self, index: Tensor) -> Tensor:
        """(q, D, j): for each recurrence the Ritz vectors of its nodes ``index``, (q, j). Cost: 2 D q m j operations."""
        columns = self.rotations.gather(2, index[:, None, :].expand(-1, self.rotations.shape[1], -1))
        return torch.stack([V.mT @ S[: len(V)].to(V) for V, S in zip(self.bases, columns, strict=True)])


def quadrature(recurrences: list[Recurrence], steps: int, unit: float) -> Quadrature:
    """Return the quadratures of Lanczos runs of up to ``steps`` steps, from products with that relative rounding."""
    count = len(recurrences)
    rotations = torch.zeros(count, steps, steps, dtype=torch.float64, device="cpu")
    nodes, weights, radii = (torch.zeros(count, steps, dtype=torch.float64, device="cpu") for _ in range(3))
    for row, recurrence in enumerate(recurrences):
        m = len(recurrence.diagonal)
        values, vectors = torch.linalg.eigh(recurrence.matrix())
        _gather_copies(values, vectors, 100 * unit * float(values.abs().max()))
        nodes[row, :m], weights[row, :m] = values, vectors[0].square()
        radii[row, :m] = float(recurrence.beside[m - 1]) * vectors[-1].abs()
        nodes[row, m:], rotations[row, :m, :m] = values[-1], vectors
    weights[weights < WEIGHTLESS] = 0
    bases = [recurrence.basis for recurrence in recurrences if recurrence.basis is not None]
    return Quadrature(nodes, weights, radii, bases, rotations)


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
