"""Does the gradient live in the top eigenspace? With stochastic and with full-batch gradient descent (Gur-Ari et al.)."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import nn

from curvscope.operators import Objective
from curvscope.report import CYCLE, Document, Section, figure, tracked
from curvscope.studies.engine import Stages, Study, claim, claims_table
from curvscope.studies.sagun._small import descend, digits, mlp
from curvscope.training import Tracker

OPTIMISERS = ("SGD", "GD")


@dataclass(frozen=True)
class SubspaceConfig:
    """Network, optimisers and where to look."""

    hidden: int = 30
    k: int = 10
    rate: float = 0.1
    batch: int = 20
    steps: int = 1200
    every: int = 100
    late: int = 400
    seeds: int = 2
    seed: int = 0


PRESETS = {"quick": SubspaceConfig(), "paper": SubspaceConfig(steps=6000, every=200, seeds=3)}


def measure(stages: Stages, config: SubspaceConfig, data: Path | None) -> dict[str, Any]:
    """A stage for each optimiser and seed."""
    pair, runs = digits(data), {}
    for name in OPTIMISERS:
        for seed in range(config.seeds):
            runs[f"{name} {seed}"] = stages.numbers(f"{name}-{seed}", partial(_run, pair, name, config.seed + seed, config))
    numbers = {"config": asdict(config), "runs": runs}
    return numbers | {"claims": _claims(numbers)}


def _run(pair: Any, name: str, seed: int, config: SubspaceConfig) -> dict[str, Any]:
    """Track one training run and return what was found."""
    model = mlp((pair[0].shape[1], config.hidden, 10), nn.Tanh, seed)
    tracker = Tracker(Objective(model, nn.CrossEntropyLoss(), [pair]), config.k, config.every)
    batch = config.batch if name == "SGD" else None
    descend(model, pair, rate=config.rate, steps=config.steps, batch=batch, seed=seed, before=tracker.step)
    clocks = ("seconds", "training_steps")
    return {
        str(step): {name: value for name, value in found.items() if not name.endswith(clocks)}
        for step, found in tracker.history.items()
    }


def _claims(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    shares = {name: _late(numbers, name, "gradient_fraction") for name in OPTIMISERS}
    means = {name: statistics.fmean(values) for name, values in shares.items()}
    text = {name: f"mean {means[name]:.3f} ({min(v):.3f} to {max(v):.3f})" for name, v in shares.items()}
    stable = [value for name in OPTIMISERS for value in _late(numbers, name, "overlap_previous")]
    return [
        claim("gradient", "SGD: the top space holds >= 0.5 of the full gradient, late mean", text["SGD"], means["SGD"] >= 0.5),
        claim("gradient", "full-batch GD with a small step: <= 0.1 of it", text["GD"], means["GD"] <= 0.1),
        claim("top space", "the top space changes slowly", f"overlap of checks {min(stable):.2f} to {max(stable):.2f}", None),
    ]


def _late(numbers: dict[str, Any], optimiser: str, what: str) -> list[float]:
    """A quantity from the step ``late`` on, over all seeds."""
    return [
        found[f"curvature/{what}"]
        for name, run in numbers["runs"].items()
        if name.startswith(f"{optimiser} ")
        for step, found in run.items()
        if int(step) >= numbers["config"]["late"]
    ]


def document(numbers: dict[str, Any]) -> Document:
    """The page."""
    config = numbers["config"]
    return Document(
        title="Does the gradient live in the top eigenspace?",
        summary=f"A tanh network 256-{config['hidden']}-10 on 500 images of 16 x 16 MNIST, trained with batches of "
        f"{config['batch']} (SGD) and with all samples (GD), learning rate {config['rate']:g}; the share of the full gradient "
        f"in the span of the top {config['k']} Hessian eigenvectors. Song et al. (2025): the alignment comes from the noise.",
        sections=[
            Section("Claims", "Pass marks are ours.", table=claims_table(numbers["claims"])),
            Section(
                "The gradient's share",
                "Of its squared norm, in the top space; a line a seed.",
                _shares(numbers),
                alternative="Share of the gradient in the top space along training",
            ),
            *(
                Section(
                    f"Along {name}",
                    "Top eigenvalues and what lies in their space, seed 0.",
                    tracked({int(step): found for step, found in numbers["runs"][f"{name} 0"].items()}, config["k"]),
                    alternative="Eigenvalues and shares along training",
                )
                for name in OPTIMISERS
            ),
        ],
    )


def _shares(numbers: dict[str, Any]) -> Figure:
    with figure(width=5.5) as (sheet, (axes,)):
        for name, colour in zip(OPTIMISERS, CYCLE, strict=False):
            for seed in range(numbers["config"]["seeds"]):
                run = numbers["runs"][f"{name} {seed}"]
                shares = [found["curvature/gradient_fraction"] for found in run.values()]
                axes.plot([int(step) for step in run], shares, color=colour, label=name if seed == 0 else None)
        axes.set(xlabel="step", ylabel="share of the gradient in the top space", ylim=(0, 1))
        axes.legend(loc="best")
    return sheet


STUDY = Study(
    "gradient-subspace",
    "Does the gradient live in the top eigenspace?",
    "Gur-Ari, Roberts, Dyer 2018; Song, Ahn, Yun 2025",
    PRESETS,
    {"quick": "1 minute", "paper": "7 minutes"},
    measure,
    document,
)
