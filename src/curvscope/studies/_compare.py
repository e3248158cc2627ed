"""Studies on overlap along training, several on one page: one panel a problem."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curvscope.errors import InvalidArgument, RunConflict, RunNotFound
from curvscope.report import CYCLE, Document, Line, Panel, Section, Table, panels, render, save_figures
from curvscope.store import write_text
from curvscope.studies.engine import NUMBERS, PAGE

COMPARABLE = ("mnist16-overlap", "overlap-at-scale")
SHOWN_K = (10, 50, 100, 350)


def compare_studies(runs: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Document:
    """Put the overlaps of several finished studies side by side, as figure 4 (right) of the paper does.

    Args:
        runs: folders of finished studies, each of ``COMPARABLE``. Labels are their problems, with the folders' names where
            two are of one problem.
        out: folder for ``report.html`` and ``figures``: new, empty, or of an earlier comparison.

    Raises:
        InvalidArgument: fewer than two runs, or a study of another kind. RunNotFound: a folder without ``numbers.json``.
        RunConflict: ``out`` holds something else.
    """
    if len(runs) < 2:
        raise InvalidArgument(f"{len(runs)} run to compare: name the folders of at least two finished studies")
    found = _labelled([_read(Path(run)) for run in runs])
    place = Path(out)
    if place.exists() and (not place.is_dir() or any(each.name not in (PAGE, "figures") for each in place.iterdir())):
        state = "is not empty" if place.is_dir() else "is a file"
        raise RunConflict(f"{place} {state}: choose a new folder for the comparison")
    document = _document(found)
    save_figures(document, place / "figures", dpi=300, vector=True)
    write_text(place / PAGE, render(document))
    return document


def _read(run: Path) -> dict[str, Any]:
    if not (run / NUMBERS).exists():
        raise RunNotFound(f"{run} has no {NUMBERS}: run the study there to its end first")
    numbers = dict(json.loads((run / NUMBERS).read_text()))
    if numbers.get("study") not in COMPARABLE:
        raise InvalidArgument(
            f"{run} is of the study {numbers.get('study')!r}: those of {' and '.join(COMPARABLE)} can be compared"
        )
    return numbers | {"folder": run.name}


def _labelled(found: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The numbers by problem, in the order of their sizes."""
    names = [numbers["config"].get("problem", "mnist16") for numbers in found]
    labels = [name if names.count(name) == 1 else f"{name}, {own['folder']}" for name, own in zip(names, found, strict=True)]
    if len(set(labels)) < len(labels):
        raise InvalidArgument("two runs have the same problem and folder name: rename one of the folders")
    by_size = sorted(zip(labels, found, strict=True), key=lambda each: _size(each[1]))
    return dict(by_size)


def _size(numbers: dict[str, Any]) -> int:
    return int(next(iter(numbers["checkpoints"].values()))["size"])


def _curves(numbers: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Checkpoints of the first split by step; where only the published statistics were asked for, those."""
    split = numbers["config"]["splits"][0]
    found = {
        step: numbers["checkpoints"].get(f"{step} {split}") or numbers["checkpoints"].get(f"{step} {split} initial")
        for step in numbers["config"]["steps"]
    }
    return {step: own for step, own in found.items() if own}


def _line(size: int, own: dict[str, Any], colour: str) -> Line:
    k = range(1, len(own["overlap"]["value"]) + 1)
    value, low, high = (
        [each * size / i for i, each in zip(k, own["overlap"][name], strict=True)] for name in ("value", "lower", "upper")
    )
    return Line(list(k), value, [max(each, 1e-3) for each in low], high, colour=colour)


def _document(found: dict[str, dict[str, Any]]) -> Document:
    names = ", ".join(found)
    return Document(
        title="Overlap of large weights and top eigenspaces, problem by problem",
        summary=f"Finished studies side by side: {names}. Overlap over chance, k/D, so that sizes can be compared.",
        sections=[
            Section(
                "Against k",
                "At the first, a middle and the last step of each problem, with certified intervals.",
                _against_k(found),
                alternative="Overlap over chance against k, a panel a problem",
                shows="figure 4 (right)",
            ),
            Section(
                "Against the training step",
                "At some k, with certified intervals.",
                _against_steps(found),
                alternative="Overlap over chance against the step, a panel a problem",
            ),
            Section("The numbers", "At the last step; the interval is of the certified eigenspace.", table=_table(found)),
        ],
        provenance={name: f"{own['study']}, preset {own['preset']}, folder {own['folder']}" for name, own in found.items()},
    )


def _against_k(found: dict[str, dict[str, Any]]) -> Any:
    content = []
    for name, numbers in found.items():
        curves, size = _curves(numbers), _size(numbers)
        steps = list(curves)
        shown = sorted({steps[0], steps[len(steps) // 2], steps[-1]})
        labels = {steps[0]: "first step", steps[-1]: "last step"}
        lines = {
            labels.get(step, "middle step"): _line(size, curves[step], colour)
            for step, colour in zip(shown, CYCLE, strict=False)
        }
        most = max(len(curves[step]["overlap"]["value"]) for step in shown)
        content.append(Panel(f"{name}, D = {size:,}", lines, ([1, most], [1, 1]), floor=0.1))
    return panels(content, x="k", y="overlap / chance", height=2.6)


def _against_steps(found: dict[str, dict[str, Any]]) -> Any:
    content = []
    for name, numbers in found.items():
        curves, size, lines = _curves(numbers), _size(numbers), {}
        most = min(len(own["overlap"]["value"]) for own in curves.values())
        for k, colour in zip(SHOWN_K, CYCLE, strict=False):
            if k > most:
                continue
            value, low, high = (
                [own["overlap"][which][k - 1] * size / k for own in curves.values()] for which in ("value", "lower", "upper")
            )
            lines[f"k = {k}"] = Line(list(curves), value, [max(each, 1e-3) for each in low], high, colour=colour)
        if lines:
            steps = list(curves)
            content.append(Panel(name, lines, (steps, [1.0] * len(steps)), floor=0.1))
    return panels(content, x="step", y="overlap / chance", xscale="linear", height=2.6, share=False) if content else None


def _table(found: dict[str, dict[str, Any]]) -> Table:
    rows = []
    for name, numbers in found.items():
        size, (step, own) = _size(numbers), list(_curves(numbers).items())[-1]
        most = len(own["overlap"]["value"])
        for k in sorted({*(k for k in SHOWN_K if k <= most), most}):
            value, low, high = (own["overlap"][which][k - 1] for which in ("value", "lower", "upper"))
            over = value / own["null_layered"]["mean"][k - 1]
            rows.append([name, f"{size:,}", str(step), str(k), f"{value:.3e}", f"{low:.2e} to {high:.2e}"])
            rows[-1] += [f"{value * size / k:.2f}", f"{over:.2f}"]
    heads = ["problem", "D", "step", "k", "overlap", "interval", "over\nuniform chance", "over layer-\nmatched chance"]
    return Table(heads, rows)
