"""Figures of the studies on overlap along training, from their numbers: overlaps, masks, null models, spectra, gradients.

``numbers`` holds ``config`` with ``steps`` and ``splits``, and for each "STEP SPLIT" in ``checkpoints`` what
:func:`.readings.read_off` gives, with ``eigenvalues`` and ``sketch``.
"""

from __future__ import annotations

from typing import Any

import torch

from curvscope.report import CYCLE, GREY, Line, Panel, panels


def _few(steps: list[int], most: int) -> list[int]:
    """At most ``most`` of the steps, evenly, first and last among them."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)]


def _shown_steps(steps: list[int]) -> list[int]:
    """At most six of the steps, with first, last and 100."""
    return sorted({*_few(steps, 5), *({100} & set(steps))})


def _panels_of(numbers: dict[str, Any], most: int = 3) -> list[tuple[str, dict[str, Any]]]:
    """The checkpoints shown in panels: a few steps of the first split; the paper's 0, 100, 1000 where they are there."""
    config = numbers["config"]
    steps = [s for s in (0, 100, 1000) if s in config["steps"]]
    steps = steps if len(steps) == 3 else _few(list(config["steps"]), most)
    split = config["splits"][0]
    return [(f"step {step}, {split}", numbers["checkpoints"][f"{step} {split}"]) for step in steps]


def figure_overlaps(numbers: dict[str, Any], split: str) -> Any:
    """Overlap against k: a panel a split, a line a step."""
    content = []
    splits = [split, *(s for s in numbers["config"]["splits"] if s != split)]
    for each in splits:
        lines = {}
        steps = _shown_steps(list(numbers["config"]["steps"]))
        for step, colour in zip(steps, CYCLE, strict=False):
            own = numbers["checkpoints"][f"{step} {each}"]
            k = list(range(1, len(own["overlap"]["value"]) + 1))
            lines[f"step {step}"] = Line(
                k, own["overlap"]["value"], own["overlap"]["lower"], own["overlap"]["upper"], colour=colour
            )
        lines["random masks"] = Line(k, own["random"]["mean"], own["random"]["low"], own["random"]["high"], None, GREY)
        content.append(Panel(f"{each} Hessian", lines, (k, [i / own["size"] for i in k]), floor=min(1e-6, 0.3 / own["size"])))
    return panels(content, x="k", y="overlap", height=2.8, width=7.0 if len(content) > 1 else 4.6, legend_columns=4)


def figure_masks(numbers: dict[str, Any]) -> Any:
    """Overlap of several masks against k, a panel a step."""
    content = []
    for title, own in _panels_of(numbers):
        k = list(range(1, len(own["best"]) + 1))
        mean, std = (torch.tensor(own["null_uniform"][name], device="cpu") for name in ("mean", "std"))
        lines = {
            "best": Line(k, own["best"]),
            "SNIP": Line(k, own["snip"]),
            "magnitude": Line(k, own["overlap"]["value"]),
            "layerwise magnitude": Line(k, own["layerwise"]),
            "random masks (± 2 s.d.)": Line(
                k, mean.tolist(), (mean - 2 * std).clamp(min=1e-9).tolist(), (mean + 2 * std).tolist(), None, GREY
            ),
        }
        content.append(Panel(title, lines, (k, [i / own["size"] for i in k]), floor=min(1e-5, 0.3 / own["size"])))
    return panels(content, x="k", y="overlap with the top-k eigenspace", height=2.6, legend_columns=6)


def figure_ratios(numbers: dict[str, Any]) -> Any:
    """Overlap over the means of both null models."""
    content = []
    for title, own in _panels_of(numbers):
        k, value = list(range(1, len(own["best"]) + 1)), torch.tensor(own["overlap"]["value"], device="cpu")
        lines = {}
        for name, label in (("uniform", "over uniformly random masks"), ("layered", "over random masks with the same layers")):
            mean, std = (torch.tensor(own[f"null_{name}"][what], device="cpu") for what in ("mean", "std"))
            ratio, spread = value / mean, 2 * std / mean
            lines[label] = Line(k, ratio.tolist(), (ratio - spread).clamp(min=1e-3).tolist(), (ratio + spread).tolist())
        content.append(Panel(title, lines, ([1, k[-1]], [1, 1]), floor=0.02))
    return panels(content, x="k", y="overlap / chance", height=2.4)


def figure_spectra(numbers: dict[str, Any]) -> Any:
    """Magnitudes of certified and sketched eigenvalues."""
    content = []
    for title, own in _panels_of(numbers):
        lines = {"certified": Line(range(1, len(own["eigenvalues"]) + 1), [abs(v) for v in own["eigenvalues"]])}
        if own["sketch"]:
            lines["sketched"] = Line(
                range(1, len(own["sketch"]["eigenvalues"]) + 1), [abs(v) for v in own["sketch"]["eigenvalues"]]
            )
        content.append(Panel(title, lines))
    return panels(content, x="rank", y="|eigenvalue|", height=2.2)


def figure_gradients(numbers: dict[str, Any]) -> Any:
    """Share of the gradient in the top-k eigenspace, a line a step."""
    lines = {}
    split = numbers["config"]["splits"][0]
    for step, colour in zip(_shown_steps(list(numbers["config"]["steps"])), CYCLE, strict=False):
        own = numbers["checkpoints"][f"{step} {split}"]
        k = list(range(1, len(own["gradient_fraction"]) + 1))
        lines[f"step {step}"] = Line(k, own["gradient_fraction"], colour=colour)
    content = [Panel(f"{split} Hessian and gradient", lines, (k, [i / own["size"] for i in k]))]
    return panels(content, x="k", y="share of the gradient", width=4.6, height=2.6, legend_columns=4)
