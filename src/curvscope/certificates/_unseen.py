"""What one random start vector proves about eigenvalues that it has not shown: Christoffel functions of its Lanczos run."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log, pi

BISECTIONS = 30
"""Halvings of an interval of about 4 ||A||; the place that is returned is excluded however few there are."""


def log_least_share(size: int, failure: float) -> float:
    r"""Log of the share c of a Gaussian vector's squared norm that it has along any fixed unit vector, but for ``failure``.

    On the sphere in n >= 3 dimensions the density of one coordinate is at most its value at 0, sqrt(n / 2 pi), so that the
    coordinate is smaller than t in magnitude with probability at most t sqrt(2 n / pi): c = pi failure^2 / (2 n).

    Args:
        size: n.
        failure: probability that the share is smaller.

    >>> round(log_least_share(1000, 1e-3), 2)
    -20.27
    """
    return log(pi * failure**2 / (2 * max(3, size)))


class Reach:
    r"""Log of the sum of squares of the orthonormal polynomials of a Lanczos run at one place, updated step by step.

    With the coefficients a_j, b_j of m steps from a unit vector q, b_{j+1} p_{j+1}(x) = (x - a_j) p_j(x) - b_j p_{j-1}(x) and
    p_0 = 1. If no Ritz value lies beyond x, the squared length of q's part in all eigenspaces beyond x is at most
    1 / (p_0(x)^2 + .. + p_m(x)^2): the weight at x of the Gauss-Radau rule with a node there (Chebyshev, Markov, Stieltjes).

    Attributes:
        log_sum: the logarithm of that sum.
        passed: whether a Ritz value lies beyond x.

    Args:
        place: x.
        side: 1 for what lies above x, -1 for what lies below.

    Source: Golub and Meurant (2010), chapters 2 and 6.

    >>> reach = Reach(2.0, 1)
    >>> reach.update(0.0, 1.0), round(reach.log_sum, 3), reach.passed    # 1 + 2^2
    (None, 1.609, False)
    """

    def __init__(self, place: float, side: int) -> None:
        self.place, self.side = place, side
        self._ended, self.passed = False, False
        self._before, self._now, self._beta, self._scale = 0.0, 1.0, 0.0, 0.0
        self._sum = 1.0

    @property
    def log_sum(self) -> float:
        """See the class; infinite once the run has ended."""
        return inf if self._ended else log(self._sum) + 2 * self._scale

    def update(self, alpha: float, beta: float) -> None:
        """Take note of one step: its diagonal coefficient, and the one that leads to the next vector (0: there is none)."""
        raised = self.side * ((self.place - alpha) * self._now - self.side * self._beta * self._before)
        if raised <= 0:
            self.passed = True
        if beta <= 0:
            self._ended = True
            return
        self._before, self._now, self._beta = self._now, raised / beta, beta
        self._sum += self._now**2
        if self._sum > 1e200:  # rescaled before squares overflow
            factor = self._sum**-0.5
            self._before, self._now, self._sum = self._before * factor, self._now * factor, 1.0
            self._scale -= log(factor)


def unseen_beyond(alphas: Sequence[float], betas: Sequence[float], *, side: int, size: int, failure: float) -> float:
    r"""The place x nearest to the Ritz values beyond which there is no eigenvalue, except with probability ``failure``.

    Deterministic but for one event: the start vector's share along the eigenvector of the extreme eigenvalue, a fixed vector,
    is smaller than :func:`log_least_share` says. So the number of steps may depend on what they showed.

    Args:
        alphas: diagonal coefficients of m steps, in order.
        betas: what follows each of them; the last leads out of the run.
        side: 1: no eigenvalue above x; -1: none below.
        size: dimension of the space that the Gaussian start vector was drawn from.
        failure: probability.

    Cost: 30 m operations.
    Limits: an operator of more than one copy of the extreme eigenvalue has a larger share there; the bound holds as well.

    >>> unseen_beyond([0.0] * 30, [0.5] * 30, side=1, size=1000, failure=1e-3) < 1.2    # a semicircle on [-1, 1]
    True
    """
    needed = -log_least_share(size, failure)
    low = side * min(side * a for a in alphas)
    width = max(max(map(abs, alphas)), max(map(abs, betas)), 1e-300)

    def excluded(place: float) -> bool:
        """Return whether nothing lies beyond this place."""
        return _log_sum(alphas, betas, place, side) >= needed

    far = 4 * width
    while not excluded(side * far):
        far *= 4
        if far > 1e8 * width:
            return side * inf
    good, bad = side * far, low
    for _ in range(BISECTIONS):
        middle = (good + bad) / 2
        if excluded(middle):
            good = middle
        else:
            bad = middle
    return good


def _log_sum(alphas: Sequence[float], betas: Sequence[float], place: float, side: int) -> float:
    """Return the logarithm of :class:`Reach` after these steps; minus infinity where a Ritz value lies beyond the place."""
    before, now, beta, total, scale = 0.0, 1.0, 0.0, 1.0, 0.0
    for alpha, following in zip(alphas, betas, strict=True):
        raised = side * (place - alpha) * now - beta * before
        if raised <= 0:
            return -inf
        if following <= 0:
            return inf
        before, now, beta = now, raised / following, following
        total += now * now
        if total > 1e200:
            factor = total**-0.5
            before, now, total = before * factor, now * factor, 1.0
            scale -= log(factor)
    return log(total) + 2 * scale
