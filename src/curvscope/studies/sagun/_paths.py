"""Paths between two solutions: lines and Bezier curves with train and test loss, and how flat the loss is about a point."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from curvscope.operators import Objective
from curvscope.studies.sagun._small import Pair
from curvscope.training import interpolate

SPAN, POINTS = (-1.0, 2.0), 22
PERTURBED, DRAWS = 0.05, 8
"""Relative size of the random perturbations of the parameters, and their number."""
BEND_RATE, BEND_BATCH = 0.05, 100

Parameters = dict[str, Tensor]


def parameters_of(model: nn.Module) -> Parameters:
    """Return copies of the parameters by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def line(model: nn.Module, pairs: tuple[Pair, Pair], first: Parameters, second: Parameters) -> dict[str, Any]:
    """Return loss and accuracy on train and test samples on w(a) = (1 - a) first + a second, and the barrier."""
    found: dict[str, Any] = {}
    for prefix, pair in zip(("", "test_"), pairs, strict=True):
        objective = Objective(model, nn.CrossEntropyLoss(), [pair])
        profile = interpolate(objective, first, second, points=POINTS, span=SPAN)
        found |= {"alpha": profile.alpha.tolist(), f"{prefix}loss": profile.loss.tolist()}
        found[f"{prefix}accuracy"] = [] if profile.accuracy is None else profile.accuracy.tolist()
        found[f"{prefix}barrier"] = profile.barrier
    return found


def bezier(
    model: nn.Module, pairs: tuple[Pair, Pair], ends: tuple[Parameters, Parameters], *, steps: int, seed: int
) -> dict[str, Any]:
    """Return the losses on a quadratic Bezier curve between two solutions whose middle point was trained.

    .. math:: w(t) = (1 - t)^2 w_1 + 2 t (1 - t) m + t^2 w_2

    m minimises the mean of the loss over t by stochastic gradient descent from the middle of the line.

    Source: Garipov et al. (2018), "Loss surfaces, mode connectivity, and fast ensembling of DNNs".
    """
    (x, y), random = pairs[0], torch.Generator().manual_seed(seed)
    first, second = ends
    middle = {name: ((first[name] + second[name]) / 2).requires_grad_() for name in first}
    optimizer = torch.optim.SGD(middle.values(), lr=BEND_RATE, momentum=0.9)
    for _ in range(steps):
        t = float(torch.rand(1, generator=random, device="cpu"))
        chosen = torch.randint(len(y), (min(BEND_BATCH, len(y)),), generator=random, device="cpu")
        optimizer.zero_grad()
        nn.functional.cross_entropy(functional_call(model, _at(t, first, middle, second), (x[chosen],)), y[chosen]).backward()
        optimizer.step()
    places = torch.linspace(0, 1, POINTS, dtype=torch.float64, device="cpu").tolist()
    found: dict[str, Any] = {"t": places}
    with torch.no_grad():
        for prefix, pair in zip(("", "test_"), pairs, strict=True):
            outputs = [functional_call(model, _at(each, first, middle, second), (pair[0],)) for each in places]
            losses = [float(nn.functional.cross_entropy(output, pair[1])) for output in outputs]
            found[f"{prefix}loss"] = losses
            found[f"{prefix}accuracy"] = [float((output.argmax(1) == pair[1]).double().mean()) for output in outputs]
            chord = [(1 - each) * losses[0] + each * losses[-1] for each in places]
            found[f"{prefix}barrier"] = max(a - b for a, b in zip(losses, chord, strict=True))
    return found


def _at(t: float, first: Parameters, middle: Parameters, second: Parameters) -> Parameters:
    return {name: (1 - t) ** 2 * first[name] + 2 * t * (1 - t) * middle[name] + t**2 * second[name] for name in first}


def flatness(model: nn.Module, pair: Pair, place: Parameters, seed: int) -> dict[str, float]:
    """Return how much the mean loss rises under random perturbations of ``PERTURBED`` times the norm of the parameters.

    Mean over ``DRAWS`` Gaussian directions, and its standard error.
    """
    random, size = torch.Generator().manual_seed(seed), sum(float(p.square().sum()) for p in place.values()) ** 0.5
    rises = []
    with torch.no_grad():
        base = float(nn.functional.cross_entropy(functional_call(model, place, (pair[0],)), pair[1]))
        for _ in range(DRAWS):
            step = {name: torch.randn(p.shape, generator=random, device="cpu").to(p) for name, p in place.items()}
            scale = PERTURBED * size / sum(float(s.square().sum()) for s in step.values()) ** 0.5
            moved = {name: p + scale * step[name] for name, p in place.items()}
            rises.append(float(nn.functional.cross_entropy(functional_call(model, moved, (pair[0],)), pair[1])) - base)
    found = torch.tensor(rises, dtype=torch.float64, device="cpu")
    return {"rise": float(found.mean()), "stderr": float(found.std() / DRAWS**0.5), "loss": base}
