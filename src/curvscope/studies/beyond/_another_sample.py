"""Curvature and overlap on 500 images: the part of them that another 500 images would show, too."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import nn

from curvscope.operators import hessian
from curvscope.problems import Problem, as_split, get
from curvscope.report import CYCLE, GREY, Document, Section, Table, figure
from curvscope.sampling import learning_curve, population
from curvscope.solvers import eigsh
from curvscope.studies.engine import UNDECIDED, Stages, Study, claim, claims_table
from curvscope.subspaces import masks, overlap
from curvscope.training import Recorder, train

DRAWN = (1, 2, 5, 10, 20)


@dataclass(frozen=True)
class SampleConfig:
    """Problem, steps, split and pairs."""

    problem: str = "mnist16"
    steps: tuple[int, ...] = (50, 200)
    split: str = "test"
    other: str = "train"
    k: int = 10
    folds: int = 20
    halvings: int = 3
    seed: int = 12345


PRESETS = {
    "quick": SampleConfig(),
    "paper": SampleConfig(steps=(100, 1000), k=20, halvings=4),
    "3c3d": SampleConfig(problem="cifar10_3c3d", steps=(0, 100), k=20, halvings=4),
}


def measure(stages: Stages, config: SampleConfig, data: Path | None) -> dict[str, Any]:
    """Train, then a stage for each step."""
    problem = get(config.problem, data=data)
    recorder = Recorder(problem.model(config.seed), config.steps, path=stages.run.path / "parameters", resume=True)

    def run() -> dict[str, Any]:
        """Train, and record the steps that are missing."""
        return {"losses": train(problem, recorder.model, recorder, seed=config.seed, progress=stages.progress)}

    stages.numbers("training", run)
    found = {}
    for step in config.steps:
        model = recorder.load(step, problem.model())
        found[str(step)] = stages.numbers(f"step-{step:06d}", partial(_step, problem, model, config, stages))
    numbers = {"config": asdict(config), "full_data": data is not None, "steps": found}
    return numbers | {"claims": _claims(numbers)}


def _step(problem: Problem, model: nn.Module, config: SampleConfig, stages: Stages) -> dict[str, Any]:
    """Intervals from the images of one split, and what those of the other one show at the same parameters."""
    operators = [
        hessian(model, problem.criterion, problem.curvature_batches(as_split(split))) for split in (config.split, config.other)
    ]
    solutions = [eigsh(operator, config.k, which="LA", progress=stages.progress) for operator in operators]
    rankings = [masks.by_magnitude(model), masks.layerwise_magnitude(model)]
    found = population(operators[0], solutions[0], folds=config.folds, masks=rankings, progress=stages.progress)
    curve = learning_curve(operators[0], solutions[0], found, halvings=config.halvings, progress=stages.progress)
    return {
        "population": found.to_dict(),
        "best": found.best_interval.tolist(),
        "curve": {name: value for name, value in curve.to_dict().items() if name != "population"},
        "other": solutions[1].eigenvalues.tolist(),
        "other_overlap": {ranking.name: overlap(solutions[1], ranking).value.tolist() for ranking in rankings},
        "size": operators[0].shape[0],
    }


def _claims(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for step, found in numbers["steps"].items():
        sampled = found["population"]
        inside = sum(
            low <= value <= high
            for value, low, high in zip(found["other"], sampled["bracket_lower"], sampled["bracket_upper"], strict=True)
        )
        k = len(found["other"])
        text = f"step {step}: how many eigenvalues {sampled['samples']} images determine to a factor of two"
        rows.append(claim("eigenvalues", text, sampled["summary"], None))
        text = f"step {step}: brackets of these images hold the values of the {numbers['config']['other']} images"
        rows.append(claim("another sample", text, f"{inside} of {k}; the other sample scatters, too", None))
        for name, curve in sampled["overlaps"].items():
            above = [low > level for low, level in zip(curve["sampling_lower"], curve["chance"], strict=True)]
            seen = [value > level for value, level in zip(curve["overlap"], curve["chance"], strict=True)]
            measured = f"on these images above chance at {sum(seen)} of {k}; with the whole sampling interval at {sum(above)}"
            rows.append(
                claim("above chance", f"step {step}, {name}: above chance survives at every k", measured, _verdict(curve))
            )
    return rows


def _verdict(curve: dict[str, Any]) -> Any:
    """Return whether an overlap is above chance at every k, as far as its sampling interval tells."""
    if any(high < level for high, level in zip(curve["sampling_upper"], curve["chance"], strict=True)):
        return False
    return True if all(low > level for low, level in zip(curve["sampling_lower"], curve["chance"], strict=True)) else UNDECIDED


def document(numbers: dict[str, Any]) -> Document:
    """The page."""
    config, steps = numbers["config"], numbers["steps"]
    first = next(iter(steps.values()))
    count = first["population"]["samples"]
    return Document(
        title=f"Would another {count} images show the same curvature?",
        summary=f"The {config['k']} largest Hessian eigenvalues of {config['problem']} (D = {first['size']:,}) on {count} "
        f"{config['split']} images, with intervals for the population that they were drawn from, and the overlap of the top "
        f"eigenspace with the largest weights. Beside them: the {count} {config['other']} images at the same parameters.",
        sections=[
            Section("Claims", "From one sample of images; intervals of 95 %.", table=claims_table(numbers["claims"])),
            Section(
                "Eigenvalues of the sample and of the population",
                "Bars: where the population's eigenvalue lies (grey: whatever the gaps; blue: about the estimate, where "
                "neighbours are separated). Dots: these images. Crosses: the other images.",
                _eigenvalues(steps),
                alternative="Eigenvalues against their rank with sampling intervals, by step",
            ),
            Section(
                "Does the overlap stay above chance?",
                "Overlap of the k largest weights with the top-k eigenspace. Hatched: the sampling interval. Dotted: the other "
                "images. Dashed: chance.",
                _overlaps(steps),
                alternative="Overlap against k with sampling bands and chance, by step",
            ),
            Section(
                "How many images?",
                " ".join(f"Step {step}: {found['curve']['summary']}" for step, found in steps.items()),
                _curves(steps),
                alternative="Eigenvalues against the number of images, by step",
            ),
            Section("Numbers", "Numerical and sampling intervals side by side.", table=_table(steps)),
        ],
        provenance={
            "preset": numbers["preset"],
            "data": "the full set" if numbers["full_data"] else "the packaged part",
            "intervals": f"curvscope.population, {config['folds']} folds",
        },
    )


def _eigenvalues(steps: dict[str, Any]) -> Figure:
    with figure(len(steps), width=4.2 * len(steps), height=3.8, sharey=True) as (sheet, panels):
        for axes, (step, found) in zip(panels, steps.items(), strict=True):
            sampled = found["population"]
            index = np.arange(1, len(found["other"]) + 1)
            floor = min(sampled["eigenvalue"]) / 30
            low, high = (np.maximum(np.asarray(sampled[f"bracket_{end}"]), floor) for end in ("lower", "upper"))
            axes.vlines(index, low, high, color="0.8", linewidth=6, label="sampling bracket")
            valid = np.asarray(sampled["valid"], dtype=bool)
            low, high = (np.maximum(np.asarray(sampled[f"sampling_{end}"]), floor)[valid] for end in ("lower", "upper"))
            axes.vlines(index[valid], low, high, color=CYCLE[0], linewidth=2, label="sampling interval")
            axes.plot(index, sampled["eigenvalue"], "ko", markersize=3, label="these images")
            axes.plot(index, np.maximum(found["other"], floor), "x", color=CYCLE[1], markersize=5, label="the other images")
            axes.set(yscale="log", xlabel="i", title=f"step {step}")
        panels[0].set_ylabel("eigenvalue")
        panels[0].legend(loc="best", fontsize="small")
    return sheet


def _overlaps(steps: dict[str, Any]) -> Figure:
    with figure(len(steps), width=4.2 * len(steps), height=3.8, sharey=True) as (sheet, panels):
        for axes, (step, found) in zip(panels, steps.items(), strict=True):
            for (name, curve), colour in zip(found["population"]["overlaps"].items(), CYCLE, strict=False):
                k = curve["k"]
                axes.plot(k, curve["overlap"], color=colour, label=name)
                band: dict[str, Any] = {"color": colour, "alpha": 0.15, "hatch": "///", "linewidth": 0}
                axes.fill_between(k, np.maximum(curve["sampling_lower"], 1e-6), curve["sampling_upper"], **band)
                axes.plot(k, found["other_overlap"][name], ":", color=colour)
            axes.plot(k, curve["chance"], "--", color=GREY, label="chance")
            axes.set(xscale="log", yscale="log", xlabel="k", title=f"step {step}")
            axes.set_ylim(0.2 * curve["chance"][0], None)
        panels[0].set_ylabel("overlap")
        panels[0].legend(loc="best", fontsize="small")
    return sheet


def _curves(steps: dict[str, Any]) -> Figure:
    with figure(len(steps), width=4.2 * len(steps), height=3.8, sharey=True) as (sheet, panels):
        for axes, (step, found) in zip(panels, steps.items(), strict=True):
            curve, best = found["curve"], found["best"]
            floor = min(found["population"]["eigenvalue"]) / 30
            for place, (i, colour) in enumerate(zip([i for i in DRAWN if i <= len(best)], CYCLE, strict=False)):
                values = [row[i - 1] for row in curve["eigenvalues"]]
                bars = [row[i - 1] or 0.0 for row in curve["spread"]]
                axes.errorbar(
                    curve["sizes"], values, yerr=bars, color=colour, marker="o", markersize=3, label=f"eigenvalue {i}"
                )
                low, high = (max(end, floor) for end in best[i - 1])
                axes.vlines(curve["sizes"][-1] * (1.25 + 0.15 * place), low, high, color=colour, linewidth=3, alpha=0.6)
            axes.set(xscale="log", yscale="log", xlabel="images (right: population)", title=f"step {step}")
        panels[0].set_ylabel("eigenvalue")
        panels[0].legend(loc="best", fontsize="small")
    return sheet


def _table(steps: dict[str, Any]) -> Table:
    rows = []
    for step, found in steps.items():
        sampled = found["population"]
        for i, value in enumerate(sampled["eigenvalue"]):
            ends = [
                f"[{sampled[f'{kind}_lower'][i]:.4g}, {sampled[f'{kind}_upper'][i]:.4g}]"
                for kind in ("numerical", "sampling", "bracket")
            ]
            if not sampled["valid"][i]:
                ends[1] = ""
            rows.append([step, str(i + 1), f"{value:.4g}", *ends, f"{found['other'][i]:.4g}"])
    heads = ["step", "i", "these images", "numerical\ninterval", "sampling\ninterval", "sampling\nbracket", "the other\nimages"]
    return Table(heads, rows)


STUDY = Study(
    "another-sample",
    "Would another 500 images show the same curvature?",
    "what the paper left open: 500 images as a sample",
    PRESETS,
    {"quick": "1 minute", "paper": "5 minutes", "3c3d": "not measured"},
    measure,
    document,
)
