"""Single eigenvalues that quadratures have resolved, from either end of the spectrum."""

from __future__ import annotations

import torch
from torch import Tensor


def ladder(exact: Tensor, nodes: Tensor, weights: Tensor, radii: Tensor, *, largest: bool) -> tuple[Tensor, int]:
    """Return the eigenvalues of one end as far as they are resolved, and the node after them; how many are resolved.

    The j-th node of any recurrence is at most the j-th eigenvalue (Cauchy), so the largest over the probes is taken.

    Args:
        exact: known eigenvalues, ascending.
        nodes: (q, m) of the quadratures of the others.
        weights: (q, m); nodes without weight do not count.
        radii: (q, m).
        largest: which end.

    >>> nodes, none = torch.tensor([[1.0, 5.0]]), torch.zeros(0)
    >>> ladder(none, nodes, torch.ones(1, 2), torch.tensor([[1.0, 0.1]]), largest=True)
    (tensor([5., 1.]), 1)
    """
    sign = 1 if largest else -1
    known = (sign * exact).sort(descending=True).values
    signed, order = torch.where(weights > 0, sign * nodes, -torch.inf).sort(dim=1, descending=True)
    best = signed.argmax(dim=0)
    values, reached = signed.gather(0, best[None])[0], radii.gather(1, order).gather(0, best[None])[0]
    values, reached = values[values > -torch.inf], reached[values > -torch.inf]
    spacing = torch.cat([values[:-1] - values[1:], torch.zeros(1, dtype=values.dtype, device="cpu")])
    sure = int((reached <= 0.5 * spacing).long().cumprod(0).sum())
    resolved = values[: sure + 1]
    known = known[known > resolved[-1]]  # below it, others are missing in between
    merged = torch.cat([resolved, known]).sort(descending=True).values
    return sign * merged, len(known) + sure


def is_resolved(nodes: Tensor, weights: Tensor, radii: Tensor) -> Tensor:
    """Return which nodes have weight and a radius of at most half their distance to the next one, (q, m).

    >>> is_resolved(torch.tensor([[1.0, 5.0]]), torch.ones(1, 2), torch.tensor([[3.0, 0.1]]))
    tensor([[False,  True]])
    """
    spacing = torch.full_like(nodes, torch.inf)
    if nodes.shape[1] > 1:
        gaps = nodes.diff(dim=1)
        spacing[:, 1:] = gaps
        spacing[:, :-1] = torch.minimum(spacing[:, :-1].clone(), gaps)
    return (weights > 0) & (radii <= 0.5 * spacing)
