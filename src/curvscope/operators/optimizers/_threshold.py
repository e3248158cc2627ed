"""The eigenvalue at which an optimizer's steps become unstable."""

from __future__ import annotations

import math
import textwrap
from typing import Any, ClassVar, Self

from torch.optim import Optimizer

from curvscope.errors import InvalidArgument
from curvscope.operators.optimizers._dynamics import Dynamics, mixable
from curvscope.operators.optimizers._reading import check_descends, plain_state, reader_of, unwrapped
from curvscope.system import Displayed, Hinted, checked

CONDITIONS = (
    "full-batch steps on a quadratic whose curvature and preconditioner P stay as they are, and no negative eigenvalue: steps "
    "along an eigenvector of P^(-1/2) H P^(-1/2) shrink below the threshold and grow above it; near a minimum of a network it "
    "is what the largest eigenvalue rises to and stays at"
)


class StabilityThreshold(Displayed, Hinted, float):
    """A threshold, which is a number, with where it comes from.

    Attributes:
        formula: of the optimizer's kind.
        source: of the formula.
        conditions: under which the threshold decides.
        learning_rate: of the group that it is for; rows of the other groups are scaled to it.
        optimizer: name of the optimizer's class.

    >>> import torch
    >>> threshold = stability_threshold(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5))
    >>> threshold == 4.0, threshold.formula.split(";")[0]
    (True, '2/lr')
    """

    _instead: ClassVar[dict[str, str]] = {"item": "float(threshold)"}

    formula: str
    source: str
    conditions: str
    learning_rate: float
    optimizer: str

    def __new__(cls, value: float, **facts: Any) -> Self:
        """A float with facts."""
        made = super().__new__(cls, value)
        made.__dict__.update(facts)
        return made

    def __getnewargs_ex__(self) -> tuple[tuple[float], dict[str, Any]]:
        return (float(self),), dict(self.__dict__)

    @property
    def value(self) -> float:
        """The threshold as a plain number."""
        return float(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"value": float(self), **self.__dict__}

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{float(self):.6g}, threshold of {self.optimizer} with lr = {self.learning_rate:g}",
                f"formula: {self.formula}",
                f"source: {self.source}",
                *textwrap.wrap(f"holds for {self.conditions}", 120),
            ]
        )


@checked
def stability_threshold(optimizer: Any) -> StabilityThreshold:
    r"""Return the largest eigenvalue of the preconditioned Hessian at which an optimizer's next steps are stable.

    ================================  ===============================================
    optimizer                         threshold of P^(-1/2) H P^(-1/2)
    ================================  ===============================================
    SGD, RMSprop, Adagrad             2 / lr
    SGD, RMSprop with momentum        2 (1 + beta) / ((1 - dampening) lr)
    SGD with Nesterov momentum        2 (1 + beta) / ((1 + 2 beta) lr)
    Adam                              2 (1 + beta_1) / ((1 - beta_1) lr), 38 / lr for 0.9
    AdamW (decoupled decay)           (1 + beta_1) (2 - lr weight_decay) / ((1 - beta_1) lr)
    NAdam                             by the weights of gradient and momentum in its next step
    ================================  ===============================================

    P is the identity for SGD and the diagonal that a step divides by for the others; :func:`preconditioned` gives the matrix.
    It is a number (``float``) with the formula, its source and its conditions.

    Args:
        optimizer: of torch.optim: SGD, RMSprop, Adagrad, Adam, AdamW, NAdam, a subclass, or a wrapper with ``.optimizer``. Of
            several parameter groups, the threshold is that of the first one that moves (lr > 0), and :func:`preconditioned`
            scales the rows of the others to it.

    Cost: none.

    Raises:
        InvalidType: no optimizer. InvalidArgument: one of another kind, one that maximizes, or groups for whose settings no
            single threshold decides (other momenta, where the gradient also enters the step directly).
    Limits: weight decay that is part of the gradient adds to H, see :func:`preconditioned`, and leaves the threshold as it is.
    Source: Jury's criterion for the recurrence in :class:`.Dynamics`; Cohen et al. (arXiv 2103.00065; 2207.14484).

    >>> import torch
    >>> round(stability_threshold(torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=1e-3)), 6)
    38000.0
    """
    found = unwrapped(optimizer)
    reader, parts = reader_of(found), dynamics_by_group(found)
    group, dynamics = reference(found, parts)
    return StabilityThreshold(
        dynamics.threshold,
        formula=reader.formula,
        source=reader.source,
        conditions=CONDITIONS,
        learning_rate=float(group["lr"]),
        optimizer=type(found).__name__,
    )


def has_preconditioner(optimizer: Any) -> bool:
    """Return whether the preconditioner of an optimizer can be read: always that of SGD, of others after their first step.

    >>> import torch
    >>> has_preconditioner(torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=0.1))
    False
    """
    found = unwrapped(optimizer)
    parameters = (parameter for group in found.param_groups for parameter in group["params"])
    return reader_of(found).denominator is None or any(plain_state(found, one) is not None for one in parameters)


def dynamics_by_group(optimizer: Optimizer) -> list[Dynamics]:
    """Return the next step of each group, by its first parameter that has a state.

    Raises:
        InvalidArgument: a group maximizes, or no single threshold decides for all groups.
    """
    reader, parts = reader_of(optimizer), []
    for group in optimizer.param_groups:
        check_descends(group)
        states = (plain_state(optimizer, parameter) for parameter in group["params"])
        parts.append(reader.dynamics(group, next((state for state in states if state is not None), None)))
    if not mixable([part for part in parts if part.rate]):
        raise InvalidArgument(
            "parameter groups have different momenta and gradients that also enter the step directly (Nesterov): no single "
            "threshold decides about their stability; give all groups the same momentum"
        )
    return parts


def reference(optimizer: Optimizer, parts: list[Dynamics]) -> tuple[dict[str, Any], Dynamics]:
    """Return the first group that moves, and its next step.

    Raises:
        InvalidArgument: none moves.
    """
    for group, part in zip(optimizer.param_groups, parts, strict=True):
        if math.isfinite(part.threshold):
            return group, part
    raise InvalidArgument(
        "no parameter group of the optimizer moves (lr = 0 everywhere): choose a step of the schedule with lr > 0"
    )
