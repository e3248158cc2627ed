"""Eigenvalues at the ends that all recurrences have found: how often each is there, and the quadratures without them."""

from __future__ import annotations

import torch
from torch import Tensor

from curvscope.estimators.lanczos import Quadrature
from curvscope.solvers.measure import blocks

SHARP = 1e-3
"""A pair counts as found when its residual is at most this times the distance to the next node."""
AT_ONCE = 8
"""Ritz vectors of each probe that are made at a time."""
DISTINCT = 0.05
"""Singular value from which on the Ritz vectors of several probes span one more direction."""


def take_out(found: Quadrature, unit: float) -> tuple[Tensor, Tensor]:
    """(eigenvalues, weights): what is resolved at both ends, and the weights of all the other nodes, each row summing to 1.

    A unit vector v = sum_j c_j u_j + rest has the weight |c_j|^2 at an eigenvalue that its recurrence has found, whose
    expectation is known: 1/n for each of its eigenvectors. Without these nodes, what is left is the quadrature of the rest, as
    if the pairs had been deflated before. How many eigenvectors there are is the rank of the Ritz vectors of all probes: one
    recurrence sees one vector of each eigenspace, the same for all probes only if it is simple.

    Args:
        found: with its Lanczos vectors.
        unit: rounding of the products, relative.

    Returns:
        eigenvalues: float64 (k,), with their multiplicities (up to the number of probes).
        weights: float64 (q, m).
    """
    values: list[Tensor] = []
    weights = found.weights.clone()
    noise = 10 * unit * float(found.nodes.abs().max())
    for sign in (1, -1):
        keyed = torch.where(found.weights > 0, sign * found.nodes, -torch.inf)
        ladder, order = keyed.sort(dim=1, descending=True)
        radii = found.radii.gather(1, order) + noise
        sharp = _sharp(ladder, radii)
        for start, stop in blocks(sharp, AT_ONCE):
            vectors = found.ritz_vectors(order[:, start:stop])
            for rung in range(start, stop):
                if bool((weights.gather(1, order[:, rung : rung + 1]) == 0).any()):  # taken from the other end already
                    break
                spans = vectors[:, :, rung - start]
                multiplicity = int((torch.linalg.eigvalsh(spans @ spans.T) > DISTINCT**2).sum())
                values.append((sign * ladder[:, rung].max()).expand(multiplicity))
                weights.scatter_(1, order[:, rung : rung + 1], 0.0)
    left = weights.sum(dim=1, keepdim=True)
    return torch.cat(values) if values else torch.zeros(0, dtype=torch.float64), weights / left


def _sharp(ladder: Tensor, radii: Tensor) -> int:
    """How many nodes from the end on are resolved in every recurrence, and the same in all; one node is always left."""
    if ladder.shape[1] < 2:
        return 0
    inward = ladder[:, :-1] - ladder[:, 1:] - radii[:, 1:]
    outward = torch.cat([torch.full((len(ladder), 1), torch.inf), inward[:, :-1]], dim=1)
    sharp = (radii[:, :-1] <= SHARP * torch.minimum(inward, outward)).all(dim=0)
    agree = ladder.max(dim=0).values - ladder.min(dim=0).values <= 2 * radii.max(dim=0).values
    return int((sharp & agree[:-1]).long().cumprod(0).sum())
