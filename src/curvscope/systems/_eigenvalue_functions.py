"""Functions of eigenvalues: names for the common ones, values inside their domain, divided differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.system import same_choice

Function = Callable[[Tensor], Tensor]

NAMED: dict[str, Function] = {
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "inverse_sqrt": torch.rsqrt,
    "inverse": torch.reciprocal,
}
SAME = {
    **dict.fromkeys(("rsqrt", "invsqrt", "inversesquareroot", "inversesqrt"), "inverse_sqrt"),
    **dict.fromkeys(("squareroot", "root"), "sqrt"),
    **dict.fromkeys(("inv", "reciprocal"), "inverse"),
    **dict.fromkeys(("ln", "logarithm"), "log"),
    "exponential": "exp",
}
NEAR = 1e-6
"""Relative distance of two points below which a divided difference is a central difference about their middle."""


def function_of(given: Any) -> Function:
    """Return the function that a name stands for, or a callable whose results are checked.

    Raises:
        InvalidArgument: another name. InvalidType: no callable, or one that does not give a float64 tensor of the same shape.
    """
    if isinstance(given, str):
        name = same_choice(given, SAME).lower()
        if name not in NAMED:
            raise InvalidArgument(f"f={given!r}: choose one of {', '.join(NAMED)}, or pass a function of a tensor")
        return NAMED[name]
    if not callable(given):
        raise InvalidType(f"f is a {type(given).__name__}: pass one of {', '.join(NAMED)}, or a function of a float64 tensor")

    def checked_function(values: Tensor) -> Tensor:
        made = given(values)
        if not isinstance(made, Tensor) or made.shape != values.shape or made.is_complex():
            what = f"a tensor {tuple(made.shape)} of {made.dtype}" if isinstance(made, Tensor) else f"a {type(made).__name__}"
            raise InvalidType(
                f"f gave {what} for a tensor {tuple(values.shape)}: it has to map each eigenvalue to a real number"
            )
        return made.double()

    return checked_function


def values_at(function: Function, eigenvalues: Tensor, noise: float) -> Tensor:
    """Return f(eigenvalues); those that are zero to rounding count as zero where f is not finite at them otherwise.

    Args:
        function: f.
        eigenvalues: float64, on the CPU.
        noise: magnitude up to which one is rounding.

    Raises:
        InvalidArgument: f is not finite at an eigenvalue.
    """
    values = function(eigenvalues)
    wrong = ~torch.isfinite(values)
    if bool(wrong.any()):
        tiny = wrong & (eigenvalues.abs() <= noise)
        values = torch.where(tiny, function(torch.where(tiny, 0.0, eigenvalues)), values)
        wrong = ~torch.isfinite(values)
    if bool(wrong.any()):
        least = float(eigenvalues[wrong].min())
        raise InvalidArgument(
            f"f is not finite at {least:.3g}, {'about ' if least else ''}an eigenvalue of A + damping I: use more damping, "
            "a function that is finite there, or a Gauss-Newton or Fisher matrix, which has no negative eigenvalues"
        )
    return values


def divided(function: Function, points: Tensor, nodes: Tensor) -> Tensor:
    """Return f[x, y] = (f(x) - f(y)) / (x - y), (p, n) for p points and n nodes; f'(x) where the two agree.

    The error of a difference of rounded values is rounding over the distance: near points use a central difference.
    """
    apart = points[:, None] - nodes
    width = NEAR * torch.maximum(points.abs()[:, None], nodes.abs()).clamp(min=1e-300)
    near = apart.abs() < width
    found = (function(points)[:, None] - function(nodes)) / torch.where(near, 1.0, apart)
    if bool(near.any()):
        middle, half = ((points[:, None] + nodes) / 2)[near], width[near]
        smooth = (function(middle + half) - function(middle - half)) / (2 * half)
        found[near] = torch.where(torch.isfinite(smooth), smooth, 0.0)
    return found


def points_between(low: float, high: float, nodes: Tensor) -> Tensor:
    """Return points of [low, high] on which the largest magnitude of a smooth function is looked for.

    Both ends, Chebyshev points, logarithmic distances from each end (functions change fastest at one), and the middles between
    nodes.
    """
    span = high - low
    if span <= 0:
        return torch.tensor([low], dtype=torch.float64, device="cpu")
    angles = torch.linspace(0, torch.pi, 129, dtype=torch.float64, device="cpu")
    distances = span * torch.logspace(-12, 0, 97, dtype=torch.float64, device="cpu")
    middles = (nodes[1:] + nodes[:-1]) / 2
    stride = max(1, len(middles) // 256)
    middles = middles[::stride]
    every = [low + span * (1 - angles.cos()) / 2, low + distances, high - distances, middles]
    found = torch.cat([*every, torch.tensor([low, high], dtype=torch.float64, device="cpu")])
    kept: Tensor = found[(found >= low) & (found <= high)].unique()
    return kept
