"""Whether the user's model really computes with the parameters of an objective; see :mod:`.substitution`."""

from __future__ import annotations

import torch
from torch import Tensor

from curvscope.errors import CapturedParameter, NotDeterministic, NotFinite
from curvscope.operators.objective._batch_loss import BatchLoss
from curvscope.operators.objective._batches import Batch
from curvscope.operators.objective._writes import quoted

SAME = 30.0
"""Units in the last place, or times the measured difference of repetitions, that the same computation may differ by."""

NOISE = 1e-2
"""Difference of repetitions with the same random numbers that is no rounding."""


def check_substitution(objective: BatchLoss) -> None:
    """See that the gradient through exchanged parameters is the gradient of the user's own model; looked at once.

    Where it is not, because a weight is reached by a second reference, the objective continues with the values written into the
    model's own parameters. Both gradients are evaluated with other random numbers, so that a model that draws some is seen.

    Cost: two gradients of a few samples; more only where they differ.

    Raises:
        NotDeterministic: two evaluations differ: the model draws random numbers, or keeps a state.
        CapturedParameter: a weight is reached in a way that cannot be followed; it is named.
    """
    if objective.substitution is not None:
        return
    with objective.isolated():
        piece, exchanged = _first_gradient(objective)
        objective.substitution = "exchanged"
        own = _own_gradient(objective, piece)
        if own is None or _apart(exchanged, own) <= SAME * objective.rounding:
            return
        rounding = SAME * max(objective.rounding, _repeated(objective, piece, exchanged))
        if _apart(exchanged, own) <= rounding:
            return
        moved = _differing(objective, exchanged, own)
    objective.substitution = "in place"
    with objective.isolated():
        objective.seed(0)
        if _apart(objective.batch_gradient(piece), own) > rounding:
            objective.substitution = None
            raise CapturedParameter(
                f"the model reaches {quoted(moved)} by a second reference (a plain list, a closure, or a view or copy made in "
                "__init__) that does not follow the parameter",
                "Read the parameter itself in forward()",
            )


def _first_gradient(objective: BatchLoss) -> tuple[Batch, Tensor]:
    """A few samples of the first batch, or all of it where these are no batch, and the gradient there."""
    batch, _ = next(objective.batches())
    for piece in (objective.few_samples(batch), batch):
        if piece is None:
            continue
        try:
            torch.manual_seed(1)
            objective.seed(0)
            gradient = objective.batch_gradient(piece)
        except (RuntimeError, ValueError, TypeError, LookupError):
            if piece is batch:
                raise
            continue
        if bool(torch.isfinite(gradient).all()):
            return piece, gradient
    raise NotFinite(
        f"the gradient of the first batch has NaN or infinite entries in {objective.dtype}: look at the loss at these "
        "parameters, or try dtype=torch.float64"
    )


def _own_gradient(objective: BatchLoss, piece: Batch) -> Tensor | None:
    """The gradient of the user's own model at the objective's values; None where it cannot be evaluated there."""
    try:
        with objective.in_own_parameters() as chosen:
            torch.manual_seed(2)
            objective.seed(0)
            with torch.enable_grad():
                loss = objective.loss(chosen, piece).reshape(())
                if not loss.requires_grad:
                    return None
                return objective.parameters.join(torch.autograd.grad(loss, chosen, materialize_grads=True))
    except (RuntimeError, NotImplementedError, TypeError, ValueError, AssertionError):
        return None


def _repeated(objective: BatchLoss, piece: Batch, exchanged: Tensor) -> float:
    """Relative difference of the same gradient evaluated again, with the same random numbers.

    Raises:
        NotDeterministic: it is no rounding, or other random numbers change the gradient by more.
    """
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        objective.seed(0)
        found.append(_apart(objective.batch_gradient(piece), exchanged))
    if found[0] > NOISE or found[1] > SAME * max(objective.rounding, found[0]):
        raise NotDeterministic(
            "the loss of the same samples differs from one evaluation to the next: the model or the loss draws random numbers "
            "in its forward pass, or keeps a state",
            "Draw them outside and put them into the batch; or pass noise=0 (a seed) to measure one fixed draw from the global "
            "generators; dropout belongs in nn.Dropout or functional.dropout(..., training=self.training)",
        )
    return found[0]


def _apart(first: Tensor, second: Tensor) -> float:
    difference, scale = float((first - second).norm()), float(torch.maximum(first.norm(), second.norm()))
    return difference / scale if difference else 0.0


def _differing(objective: BatchLoss, exchanged: Tensor, own: Tensor) -> list[str]:
    """Names of the parameters whose gradients differ, the most affected first."""
    apart = zip(objective.parameters.names, objective.parameters.split(exchanged - own), strict=True)
    sizes = {name: float(piece.norm()) for name, piece in apart}
    largest = max(sizes.values())
    return sorted((name for name, size in sizes.items() if size > 1e-3 * largest), key=lambda name: -sizes[name])
