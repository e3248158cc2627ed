"""Figures against the training step: loss and accuracy; overlap by the exact method and by the sketch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from curvscope.report import CYCLE, GREY, Line, Panel, Section, Table, panels

SHOWN_K = (10, 50, 100, 350)
SMOOTHED = 20
"""Steps over which the losses of batches are averaged where there are many; their range is the band."""


def training_section(losses: Sequence[float], points: Mapping[int, Mapping[str, float]], shows: str) -> Section:
    """Return the section on loss and accuracy along training.

    Args:
        losses: of the batches, from step 0 on; empty where training was not part of the study.
        points: ``test_loss`` and ``test_accuracy``, and ``curvature_loss`` where it is known, by step.
        shows: the figures of the paper that it repeats.
    """
    content = [_losses(losses, points)]
    steps = sorted(points)
    accuracy = {"test accuracy": Line(steps, [points[step]["test_accuracy"] for step in steps], colour=CYCLE[1])}
    content.append(Panel("accuracy", accuracy, floor=0.0))
    return Section(
        "Loss and accuracy along training",
        "Loss of the batches, before each update (mean and range of "
        f"{SMOOTHED} steps where there are many), and of all test samples; accuracy on all test samples.",
        panels(content, x="step", y="", xscale="linear", yscale="linear", height=2.3, share=False),
        alternative="Loss and accuracy against the training step",
        shows=shows,
    )


def _losses(losses: Sequence[float], points: Mapping[int, Mapping[str, float]]) -> Panel:
    lines, steps = {}, sorted(points)
    width = SMOOTHED if len(losses) > 5 * SMOOTHED else 1
    groups = [losses[i : i + width] for i in range(0, len(losses), width)]
    if groups:
        middle = [i * width + (len(group) - 1) / 2 for i, group in enumerate(groups)]
        means = [sum(group) / len(group) for group in groups]
        lines["batch loss"] = Line(middle, means, [min(g) for g in groups], [max(g) for g in groups], colour=CYCLE[0])
    for key, label, colour in (("test_loss", "test loss", CYCLE[1]), ("curvature_loss", "loss of curvature samples", CYCLE[2])):
        if all(key in points[step] for step in steps):
            lines[label] = Line(steps, [points[step][key] for step in steps], colour=colour)
    return Panel("loss", lines, floor=0.0)


def overlap_section(numbers: dict[str, Any], shows: str) -> Section:
    """Return the section on overlap against the training step, exact and sketched.

    ``numbers`` as in :mod:`._overlap_figures`, with ``overlap`` and ``sketch`` in each checkpoint.
    """
    rows = sketch_errors(numbers)
    return Section(
        "Overlap against the training step, exact and sketched",
        "Overlap over chance, k/D, of the largest weights with the top-k eigenspace: certified (solid, with its interval) and "
        f"from the sketched eigenvectors (dashed). {_validity(rows)}",
        _figure_overlaps(numbers),
        alternative="Overlap over chance against the training step for several k, exact and sketched",
        table=Table(
            ["k", "sketched / certified overlap:\nsmallest", "median", "largest", "checkpoints"],
            [[str(k), *(f"{value:.3f}" for value in (low, middle, high)), str(count)] for k, low, middle, high, count in rows],
        )
        if rows
        else None,
        shows=shows,
    )


def shown_k(numbers: dict[str, Any]) -> list[int]:
    """Return the k that are drawn against the step: those that every checkpoint has."""
    most = min(len(own["overlap"]["value"]) for own in numbers["checkpoints"].values())
    return [k for k in SHOWN_K if k <= most] or [most]


def sketch_errors(numbers: dict[str, Any]) -> list[tuple[int, float, float, float, int]]:
    """Return for each shown k: smallest, median and largest sketched overlap over the certified one, and their number."""
    rows = []
    for k in shown_k(numbers):
        ratios = [
            own["sketch"]["overlap"][k - 1] / own["overlap"]["value"][k - 1]
            for own in numbers["checkpoints"].values()
            if own["sketch"] and k <= len(own["sketch"]["overlap"]) and own["overlap"]["value"][k - 1] > 0
        ]
        if ratios:
            rows.append((k, min(ratios), median(ratios), max(ratios), len(ratios)))
    return rows


def _validity(rows: Sequence[tuple[int, float, float, float, int]]) -> str:
    if not rows:
        return "No sketch was taken."
    worst = max(rows, key=lambda row: max(abs(row[1] - 1), abs(row[3] - 1)))
    largest = max(abs(worst[1] - 1), abs(worst[3] - 1))
    return f"The sketched overlap differs from the certified one most at k = {worst[0]}, by {largest:.1%}."


def _figure_overlaps(numbers: dict[str, Any]) -> Any:
    content, size = [], next(iter(numbers["checkpoints"].values()))["size"]
    for split in numbers["config"]["splits"]:
        found = {step: numbers["checkpoints"].get(f"{step} {split}") for step in numbers["config"]["steps"]}
        own = {step: each for step, each in found.items() if each is not None}
        steps, lines = list(own), {}
        for k, colour in zip(shown_k(numbers), CYCLE, strict=False):
            value, low, high = (
                [each["overlap"][which][k - 1] * size / k for each in own.values()] for which in ("value", "lower", "upper")
            )
            lines[f"k = {k}"] = Line(steps, value, [max(each, 1e-4) for each in low], high, colour=colour)
            sketched = {s: e["sketch"]["overlap"] for s, e in own.items() if e["sketch"] and k <= len(e["sketch"]["overlap"])}
            if sketched:
                values = [curve[k - 1] * size / k for curve in sketched.values()]
                lines[f"k = {k}, sketched"] = Line(list(sketched), values, dashed=1, colour=colour)
        spread = [max(own[step]["random"]["high"][k - 1] * size / k for k in shown_k(numbers)) for step in steps]
        lowest = [min(own[step]["random"]["low"][k - 1] * size / k for k in shown_k(numbers)) for step in steps]
        lines["random masks, all these k"] = Line(steps, [1.0] * len(steps), [max(v, 1e-4) for v in lowest], spread, None, GREY)
        content.append(Panel(f"{split} Hessian", lines, (steps, [1.0] * len(steps)), floor=0.1))
    return panels(content, x="step", y="overlap / chance", xscale="linear", height=2.7, legend_columns=4)
