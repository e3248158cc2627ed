"""Is C of J^T C J the Hessian of the loss in the network's outputs? All routes to a product share it, so it is judged alone."""

from __future__ import annotations

import torch
from torch import Tensor

from curvscope.errors import UnverifiedDerivatives
from curvscope.operators.products._maps import SandwichMap
from curvscope.operators.products._routes import ROUTE_ERRORS, Routes, apart

UNCERTAINTY = 10.0
"""How many times the scatter of differences with other steps C may be off."""
UNDECIDED = 0.1
"""Scatter of differences that decides nothing."""
FINE = {True: 1e-6, False: 1e-2}
"""Error of differences in float64, and in float32, that needs no second look."""


def check_loss_hessian(routes: Routes) -> None:
    """Compare C times one random tangent with central differences of the loss's gradient in the outputs.

    Cost: one evaluation of the network on the samples of ``routes``, seven of the loss's gradient at its outputs, of a few
    tokens where these are logits over a large vocabulary.

    Raises:
        UnverifiedDerivatives: they differ by more than rounding and kinks explain.
    """
    batch_map = routes.map
    if not isinstance(batch_map, SandwichMap) or batch_map.slope is None:
        return
    try:
        error, limit = _error(batch_map, routes)
    except ROUTE_ERRORS:  # what cannot be differentiated here is told by the product
        return
    if error > limit:
        name = routes.objective.loss_name.split()[0]
        raise UnverifiedDerivatives(
            f"the second derivative of the loss ({name}) in the network's outputs is off by {error:.0e}, as central "
            "differences of its gradient show",
            "Write the loss with elementary operations; in backward(), do not use .data, .detach() or NumPy",
        )


def _error(batch_map: SandwichMap, routes: Routes) -> tuple[float, float]:
    """The relative error of C, and what differences explain of it."""
    assert batch_map.slope is not None, "asked before"
    objective, batch = routes.objective, routes.piece
    objective.seed(0)
    output, batch = batch_map.few_outputs(batch)
    generator = torch.Generator("cpu").manual_seed(0)
    drawn = torch.randn(output.shape, generator=generator, dtype=torch.float64, device="cpu").to(output)
    tangent = drawn * max(float(output.norm()) / max(output.numel(), 1) ** 0.5, 1e-3)
    with torch.no_grad():
        found = batch_map.curve(output, batch, tangent)
    slope = float(batch_map.slope(output, batch).abs().max())
    differences, steps = [], routes.steps
    for step in steps:
        plus, minus = (batch_map.slope(output + sign * step * tangent, batch) for sign in (1, -1))
        differences.append((plus - minus) / (2 * step))
    scatter = min(apart([differences[0]], [other]) for other in differences[1:])
    error = min(_beyond_rounding(found, other, slope, step, routes.eps) for other, step in zip(differences, steps, strict=True))
    return error, float("inf") if scatter > UNDECIDED else max(FINE[routes.is_precise], UNCERTAINTY * scatter)


def _beyond_rounding(found: Tensor, difference: Tensor, slope: float, step: float, eps: float) -> float:
    """The relative difference; 0 where rounding of the gradients is as large, as for saturated probabilities."""
    floor = 100 * eps * max(slope, 1 / max(found.numel(), 1)) * found.numel() ** 0.5 / step
    return 0.0 if float((found - difference).norm()) <= floor else apart([found], [difference])
