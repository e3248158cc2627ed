"""How much the loss changes when one parameter does, right also where the change is far below the loss's rounding."""

from __future__ import annotations

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.operators.objective._captured import check_substitution
from curvscope.operators.objective._objective import Objective
from curvscope.system import Progress, stage

SMALL_STEP = 1e-5
"""Below it a second-order expansion is more accurate than the difference of two float64 losses."""


def loss_differences(
    objective: Objective,
    steps: Tensor,
    *,
    places: Tensor | None = None,
    diagonal: Tensor | None = None,
    progress: Progress = None,
) -> Tensor:
    r"""L(theta + s_i e_i) - L(theta) for single parameters i, in float64 whatever the model's dtype.

    The loss is evaluated in float64: in float32 a loss near 1 has a spacing of 1e-7, and most single-parameter changes are
    smaller. Even float64 loses the smallest ones, so steps below 1e-5 use
    :math:`s_i g_i + s_i^2 H_{ii} / 2`, whose relative error is of the order of the step. Each evaluation starts from the same
    stored parameters: nothing is restored by subtraction, nothing drifts.

    Args:
        objective: L.
        steps: (n,), one for each place.
        places: (n,) int64 places in the flat vector; default all D.
        diagonal: (n,) of the Hessian at the places, for the small steps; default: left out of the expansion.
        progress: see :data:`.progress.Progress`.

    Returns:
        (n,) float64.

    Cost: one gradient, and one evaluation of the loss on all data for each step of 1e-5 or more; memory: two copies of the
    parameters in float64.

    Raises:
        InvalidArgument: shapes that do not agree, places out of range.

    >>> from torch import nn
    >>> objective = Objective(nn.Linear(1, 1, bias=False), nn.MSELoss(), [(torch.ones(1, 1), torch.zeros(1, 1))])
    >>> w = objective.values[0].double().item()
    >>> change = loss_differences(objective, torch.tensor([0.5]))
    >>> abs(change.item() - ((w + 0.5) ** 2 - w**2)) < 1e-15
    True
    """
    size = objective.parameters.size
    places = torch.arange(size, device="cpu") if places is None else places
    if steps.shape != places.shape or steps.ndim != 1 or (diagonal is not None and diagonal.shape != steps.shape):
        raise InvalidArgument(f"steps have shape {tuple(steps.shape)}, places {tuple(places.shape)}: one step a place")
    if len(places) and not 0 <= int(places.min()) <= int(places.max()) < size:
        raise InvalidArgument(f"places from {int(places.min())} to {int(places.max())}: choose 0 to D - 1 = {size - 1}")
    check_substitution(objective)
    steps = steps.double().cpu()
    precise = objective.like(objective.data, dtype=torch.float64, microbatch=objective.microbatch)
    slopes = precise.gradient().cpu()[places]
    curvature = torch.zeros_like(steps) if diagonal is None else diagonal.double().cpu()
    changes = steps * slopes + 0.5 * steps.square() * curvature
    large = (steps.abs() >= SMALL_STEP).nonzero().flatten()
    changes[large] = _evaluated(precise, places[large], steps[large], progress)
    return changes


def _evaluated(objective: Objective, places: Tensor, steps: Tensor, progress: Progress) -> Tensor:
    """The differences by evaluating the loss once for each step."""
    flat = objective.parameters.join(objective.values)
    values = objective.parameters.split(flat)  # views: changing the flat vector changes them
    changes = torch.zeros(len(places), dtype=torch.float64, device="cpu")
    with objective.isolated(), torch.no_grad(), stage("loss differences", len(places), progress) as advance:
        for number, (batch, weight) in enumerate(objective.batches()):
            objective.seed(number)
            reference = float(objective.loss_value(values, batch))
            for i, (place, step) in enumerate(zip(places.tolist(), steps.tolist(), strict=True)):
                kept = flat[place].clone()
                flat[place] += step
                objective.seed(number)
                changes[i] += weight * (float(objective.loss_value(values, batch)) - reference)
                flat[place] = kept
                if number == 0:
                    advance()
    return changes
