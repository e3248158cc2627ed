"""Closed-form stability of one step of an optimizer on a quadratic, its preconditioner held fixed."""

from __future__ import annotations

import math
from dataclasses import dataclass

SAME_LAG = 1e-9
"""Differences of :attr:`Dynamics.lag` up to which groups count as equal."""


@dataclass(frozen=True)
class Dynamics:
    r"""Linear recurrence of an optimizer along an eigenvector of curvature h, in the coordinates of its preconditioner.

    .. math:: m \leftarrow \beta m + \gamma h \theta, \qquad
        \theta \leftarrow (1 - w) \theta - \eta (d\, h \theta + c\, m)

    where m in the second line is the new one. Every optimizer of PyTorch that is read here is a member of this family.

    Attributes:
        rate: learning rate eta.
        momentum: beta.
        gain: gamma, the factor of the gradient on its way into the momentum: 1, 1 - dampening, or 1 - beta for averages.
        direct: d, the factor of the gradient in the step.
        through: c, the factor of the new momentum in the step.
        decay: w, the share of the parameters that decoupled weight decay takes off in a step.

    >>> Dynamics(rate=0.1).threshold, round(Dynamics(rate=0.1, momentum=0.9, direct=0.0, through=1.0).threshold, 9)
    (20.0, 38.0)
    """

    rate: float
    momentum: float = 0.0
    gain: float = 1.0
    direct: float = 1.0
    through: float = 0.0
    decay: float = 0.0

    @property
    def threshold(self) -> float:
        """Largest curvature at which both roots of the recurrence lie in the unit circle; infinite where nothing moves.

        The characteristic polynomial is z^2 - T z + q with T = 1 - w + beta - x (d + c gamma), q = beta (1 - w - d x) and
        x = eta h. By Jury's criterion the root that leaves the circle first leaves it at z = -1, where 1 + T + q = 0. The
        crossing as a complex pair, q = 1, is never earlier than that for the optimizers here, and is kept for completeness.
        """
        beta, left = self.momentum, 2 - self.decay
        step = self.rate * (self.direct * (1 + beta) + self.through * self.gain)
        if not step > 0:
            return math.inf
        first = (1 + beta) * left / step
        if beta * self.direct > 0:
            first = min(first, (1 / beta + 1 - self.decay) / (self.rate * self.direct))
        return max(first, 0.0)

    @property
    def lag(self) -> float:
        """Share of the curvature's effect that the momentum answers one step late, beta d / (d + c gamma)."""
        late = self.momentum * self.direct
        return late / (self.direct + self.through * self.gain) if late else 0.0


def mixable(parts: list[Dynamics]) -> bool:
    r"""Return whether scaled rows and one threshold decide exactly about the stability of groups with other settings.

    With a symmetric H, and A = diag(1 / (eta (d + c gamma))), the recurrence of all groups is the quadratic pencil

    .. math:: z^2 A - z (A (1 - w + \beta) - H) + A \beta (1 - w) - r H, \qquad r = \beta d / (d + c \gamma)

    Where r is one number for all groups, every coefficient is symmetric, so that each root is one of a scalar quadratic with
    their forms. Jury's criterion then holds for these, and the boundary is C - H singular, C the thresholds on a diagonal.
    """
    lags = [part.lag for part in parts]
    return max(lags, default=0.0) - min(lags, default=0.0) <= SAME_LAG
