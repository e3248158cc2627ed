"""All statements about one end of a spectrum, as if it were that of the largest eigenvalues."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curvscope.sampling._bracket import Limits, bracket, bracket_of_sums
from curvscope.sampling._estimate import MOST_RELATIVE, Estimates, close_groups, estimates, statistics
from curvscope.sampling._folded import Folded
from curvscope.sampling._result import Group


@dataclass(frozen=True)
class End:
    """Limits and estimates of the k largest eigenvalues of the population.

    Attributes:
        limits: of every eigenvalue.
        sums: of the sums of the 1, 2, ... largest.
        found: estimates, meant to be used where ``valid``.
        valid: (k,) booleans.
        close: groups that are not told apart.
        overlaps: (k,), of the spaces of the j first vectors of both halves.
    """

    limits: Limits
    sums: Limits
    found: Estimates
    valid: Tensor
    close: list[Group]
    overlaps: Tensor


def end_of(folded: Folded, k: int, level: float = 0.95, numerical: Tensor | float = 0.0) -> End:
    """Return everything that the folds say about the k largest eigenvalues of the population.

    Args:
        folded: the folds' matrices.
        k: number of eigenvalues, of which the sample has pairs.
        level: of every interval.
        numerical: bounds of the numerical errors of the estimates, (k,) or one for all.

    >>> from curvscope.sampling import Pairs
    >>> core = torch.diag(torch.tensor([4.0, 1.0], dtype=torch.float64))
    >>> pairs = Pairs(core.diagonal(), torch.eye(2, dtype=torch.float64), rest=0.0)
    >>> end_of(Folded(torch.ones(4) / 4, core.expand(4, 2, 2), pairs, (pairs, pairs)), 2).valid.tolist()
    [True, True]
    """
    identity = torch.eye(k, dtype=torch.float64, device="cpu")
    errors = torch.as_tensor(numerical, dtype=torch.float64, device="cpu").expand(k)
    known = statistics(folded, k)
    found, values = estimates(folded, identity, level, errors, known), folded.whole.values
    valid, close = torch.zeros(k, dtype=torch.bool, device="cpu"), []
    for first, last in close_groups(values[:k], found.spread, _following(folded, k)):
        if first == last:
            valid[first] = bool(found.relative[first] < MOST_RELATIVE and found.lower[first] > 0)
        elif last < k:
            weights = identity[first : last + 1].mean(0, keepdim=True)
            mean = estimates(folded, weights, level, float(errors.max()), known)
            ends = float(mean.value), float(mean.lower), float(mean.upper)
            close.append(Group(tuple(range(first, last + 1)), float(values[first : last + 1].mean()), *ends))
    return End(bracket(folded, k, level), bracket_of_sums(folded, k, level), found, valid, close, _overlaps(folded, k))


def _following(folded: Folded, k: int) -> float | None:
    """The next eigenvalue after the sample's, from the halves, whose eigenvalues are rather larger."""
    found = [float(pairs.values[k]) if len(pairs.values) > k else pairs.rest for pairs in folded.halves]
    return max(sum(found) / 2, min(pairs.rest for pairs in folded.halves))


def _overlaps(folded: Folded, k: int) -> Tensor:
    """Overlap of the spaces of the j first vectors of both halves, j = 1, ..., k."""
    first, second = (pairs.vectors[:, :k] for pairs in folded.halves)
    squares = (first.mT @ second).square().cumsum(0).cumsum(1).diagonal()
    return (squares / torch.arange(1, k + 1, device="cpu")).clamp(max=1.0)
