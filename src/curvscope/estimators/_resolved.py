"""Eigenvalues that all recurrences have found: how often each is there, and the quadratures without them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from curvscope.estimators._gauss import Quadrature
from curvscope.measurement import blocks

SHARP = 1e-3
"""A pair counts as found when its residual is at most this times the distance to the next node."""
AT_ONCE = 8
"""Ritz vectors of each probe that are made at a time."""
LEAST_ANGLE = 5e-5
"""Angle by which Ritz vectors may be off in any case: where a recurrence came to its end, small eigenvalues beside large ones
have more rounding than their residuals tell (1e-7 for the Laplacian of a barbell, whose zero was counted twice)."""
FAILURE = 1e-6
"""Probability with which random vectors may hide one more copy of an eigenvalue."""


def take_out(found: Quadrature, unit: float, count: int) -> tuple[Tensor, Tensor]:
    """(eigenvalues, weights): what is counted at both ends, and the weights of all the other nodes, each row summing to 1.

    A unit vector v = sum_j c_j u_j + rest has the weight |c_j|^2 at an eigenvalue that its recurrence has found, whose
    expectation is known: 1/n for each of its eigenvectors. Without these nodes, what is left is the quadrature of the rest, as
    if the pairs had been deflated before.

    One recurrence sees one vector of each eigenspace. So an eigenvalue of r copies gives the q probes Ritz vectors of rank
    min(r, q), and only a rank below q says how many copies there are. Rounding hides a rank of q - 1, and of q - 2 from 20
    probes on (:data:`LEAST_ANGLE`). An eigenvalue of more copies keeps its weight.

    Args:
        found: with its Lanczos vectors.
        unit: rounding of the products, relative.
        count: n, the eigenvalues that the quadratures are of.

    Returns:
        eigenvalues: float64 (k,), with their copies.
        weights: float64 (q, m).
    """
    values: list[Tensor] = []
    weights = found.weights.clone()
    noise = 10 * unit * float(found.nodes.abs().max())
    for sign in (1, -1):
        keyed = torch.where(found.weights > 0, sign * found.nodes, -torch.inf)
        ladder, order = keyed.sort(dim=1, descending=True)
        radii = found.radii.gather(1, order) + noise
        sharp, gaps = _sharp(ladder, radii)
        for start, stop in blocks(sharp, AT_ONCE):
            vectors = found.ritz_vectors(order[:, start:stop])
            for rung in range(start, stop):
                at = order[:, rung : rung + 1]
                if bool((weights.gather(1, at) == 0).any()):  # taken from the other end already
                    break
                angle = float((radii[:, rung] / gaps[:, rung]).norm())
                copies = _copies(vectors[:, :, rung - start], angle)
                if copies and _plausible(float(found.weights.gather(1, at).mean()), copies, count, len(weights)):
                    values.append((sign * ladder[:, rung].max()).expand(copies))
                    weights.scatter_(1, at, 0.0)
    taken, left = (
        torch.cat(values) if values else torch.zeros(0, dtype=torch.float64, device="cpu"),
        weights.sum(dim=1, keepdim=True),
    )
    if len(taken) > count or (len(taken) < count and bool((left <= 0).any())):  # contradicts the number of eigenvalues
        return torch.zeros(0, dtype=torch.float64, device="cpu"), found.weights
    return taken, weights / left if len(taken) < count else weights


def _copies(vectors: Tensor, angle: float) -> int:
    """Return the copies of an eigenvalue whose Ritz vectors, (q, D), are off by at most ``angle`` together; 0: unknown.

    q random vectors of a space of r + 1 <= q dimensions look as if they had r with a probability of about (q angle)^(q - r).
    """
    probes, angle = len(vectors), angle + LEAST_ANGLE
    sizes = torch.linalg.eigvalsh(vectors @ vectors.T).clamp(min=0).sqrt()
    rank = int((sizes > 2 * angle).sum())
    return rank if rank < probes and (probes * angle) ** (probes - rank) <= FAILURE else 0


def _plausible(weight: float, copies: int, count: int, probes: int) -> bool:
    """Return whether the mean weight of an eigenvalue agrees with its number of copies: it has a chi-square's upper tail.

    Source: Laurent and Massart (2000), lemma 1.
    """
    degrees, tail = copies * probes, -math.log(FAILURE)
    return weight * count / copies <= 1 + 2 * math.sqrt(tail / degrees) + 2 * tail / degrees


def _sharp(ladder: Tensor, radii: Tensor) -> tuple[int, Tensor]:
    """Return how many nodes from the end on are resolved in every recurrence, and the same in all; the distances to others."""
    if ladder.shape[1] < 2:
        return 0, torch.zeros(len(ladder), 0, device="cpu")
    inward = ladder[:, :-1] - ladder[:, 1:] - radii[:, 1:]
    outward = torch.cat([torch.full((len(ladder), 1), torch.inf, device="cpu"), inward[:, :-1]], dim=1)
    gaps = torch.minimum(inward, outward)
    sharp = (radii[:, :-1] <= SHARP * gaps).all(dim=0)
    agree = ladder.max(dim=0).values - ladder.min(dim=0).values <= 2 * radii.max(dim=0).values
    return int((sharp & agree[:-1]).long().cumprod(0).sum()), gaps
