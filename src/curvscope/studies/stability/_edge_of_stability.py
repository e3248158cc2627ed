"""Full-batch training at the edge of stability: sharpness against the optimizer's threshold (Cohen et al. 2021, 2022)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from curvscope.operators import hessian, preconditioned
from curvscope.report import CYCLE, Document, Section, figure
from curvscope.solvers import eigsh
from curvscope.studies.engine import Stages, Study, claim, claims_table
from curvscope.studies.sagun import digits, mlp

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "gradient descent": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "RMSprop": torch.optim.RMSprop,
    "Adam": torch.optim.Adam,
}
FORMULAS = {"gradient descent": "2/lr", "momentum": "3.8/lr", "RMSprop": "2/lr", "Adam": "38/lr"}
LOW, HIGH = 0.75, 1.25
"""Pass marks of the median over the last third of training: sharpness swings about the threshold, most of all that of Adam."""
FIRST = 10
"""The first look: adaptive optimizers have a state then, and training has hardly begun."""


@dataclass(frozen=True)
class EdgeConfig:
    """Network, rates for each optimizer, steps and where to look."""

    hidden: int = 32
    rate: float = 1.0
    momentum_rate: float = 1.0
    rmsprop_rate: float = 2e-4
    adam_rate: float = 1e-3
    relu_factor: float = 2.0
    steps: int = 800
    every: int = 40
    tol: float = 0.03
    seed: int = 0


PRESETS = {"quick": EdgeConfig(), "paper": EdgeConfig(hidden=200, steps=5000, every=50)}


def measure(stages: Stages, config: EdgeConfig, data: Path | None) -> dict[str, Any]:
    """Train with each optimizer and activation, and with half of the rate of gradient descent."""
    pair = digits(data)
    runs: dict[str, Any] = {}
    for activation in ACTIVATIONS:
        for name in OPTIMIZERS:
            rate = _rate(config, activation, name)
            stage = f"{activation}-{name.replace(' ', '-').lower()}"
            runs[f"{name}, {activation}"] = stages.numbers(stage, partial(_run, pair, activation, name, rate, config, 1))
    stage = "tanh-half-rate"
    runs["half the rate, tanh"] = stages.numbers(
        stage, partial(_run, pair, "tanh", "gradient descent", config.rate / 2, config, 2)
    )
    numbers = {"config": asdict(config), "runs": runs}
    return numbers | {"claims": _claims(runs)}


def _rate(config: EdgeConfig, activation: str, name: str) -> float:
    """Momentum and Adam need larger steps with ReLU to get to the edge in as many of them."""
    rates = [config.rate, config.momentum_rate, config.rmsprop_rate, config.adam_rate]
    rate = dict(zip(OPTIMIZERS, rates, strict=True))[name]
    return rate * (config.relu_factor if activation == "relu" and name in ("momentum", "Adam") else 1.0)


def _run(pair: Any, activation: str, name: str, rate: float, config: EdgeConfig, longer: int) -> dict[str, Any]:
    """Train on all samples, with the squared error of one-hot labels; the sharpness over the threshold along the way."""
    x, y = pair
    targets = nn.functional.one_hot(y, 10).to(x.dtype)
    model, criterion = mlp((x.shape[1], config.hidden, config.hidden, 10), ACTIVATIONS[activation], config.seed), nn.MSELoss()
    optimizer = OPTIMIZERS[name](model.parameters(), lr=rate)
    H = hessian(model, criterion, [(x, targets)], strategy="split_vmap:16")
    rows: list[dict[str, float]] = []
    losses: list[float] = []
    start: Tensor | None = None
    steps = config.steps * longer
    for step in range(steps + 1):
        optimizer.zero_grad()
        loss = criterion(model(x), targets)
        loss.backward()
        losses.append(float(loss.detach()))
        if step == min(FIRST, steps) or (step and step % (config.every * longer) == 0):
            H.move()
            A = preconditioned(H, optimizer)
            assert A.threshold is not None
            top = eigsh(A, 1, which="LA", method="krylov", tol=config.tol, v0=start, seed=config.seed, progress=False)
            start, sharpness, threshold = top.eigenvectors.to_tensor(), float(top.eigenvalues[0]), float(A.threshold)
            rows.append({"step": step, "sharpness": sharpness, "threshold": threshold, "ratio": sharpness / threshold})
        optimizer.step()
    return {"rate": rate, "rows": rows, "losses": losses}


def _late_median(run: dict[str, Any]) -> float:
    """The median of sharpness over threshold in the last third of the looks."""
    ratios = [row["ratio"] for row in run["rows"]]
    return float(median(ratios[-max(1, len(ratios) // 3) :]))


def _claims(runs: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for label, run in runs.items():
        ratios, losses = [row["ratio"] for row in run["rows"]], run["losses"]
        name = label.split(",")[0]
        late, least = _late_median(run), min(ratios[:2])
        bound = FORMULAS.get(name, "2/lr")
        rows.append(
            claim(
                label,
                f"sharpness rises from below {bound} and stays near it: median of the last third in [{LOW}, {HIGH}]",
                f"{least:.2f} at first, {late:.2f} in the last third, {max(ratios):.2f} at most",
                least < 0.9 and LOW <= late <= HIGH,
            )
        )
        reached = next((row["step"] for row in run["rows"] if row["ratio"] > 0.9), None)
        if reached is None:
            rows.append(claim(label, "the loss falls on at the edge", "the edge was not reached", False))
            continue
        first, last = losses[int(reached)], sum(losses[-50:]) / len(losses[-50:])
        rises = sum(later > earlier for earlier, later in zip(losses[int(reached) :], losses[int(reached) + 1 :], strict=False))
        rows.append(
            claim(
                label,
                "the loss falls on at the edge, though not at every step",
                f"{first:.3g} when it was reached, {last:.3g} at the end, {rises} of {len(losses) - int(reached) - 1} steps up",
                last < first and rises > 0,
            )
        )
    whole, half = (runs[name]["rows"][-1]["threshold"] * _late_median(runs[name]) for name in ("gradient descent, tanh", LAST))
    rows.append(
        claim(
            "the rate decides",
            "half of the rate, about twice the sharpness: between 1.6 and 2.4 times",
            f"{half / whole:.2f} times",
            1.6 <= half / whole <= 2.4,
        )
    )
    return rows


LAST = "half the rate, tanh"


def document(numbers: dict[str, Any]) -> Document:
    """The page."""
    config = numbers["config"]
    return Document(
        title="The edge of stability",
        summary=f"A fully connected network ({config['hidden']} hidden units, two layers) on 500 images of 16 x 16 MNIST, "
        "squared error, all samples in every step. Sharpness is the largest eigenvalue of the Hessian, for adaptive optimizers "
        "of the preconditioned one; it is shown over the eigenvalue at which the optimizer's steps along it begin to grow.",
        sections=[
            Section("Claims", "Pass marks are ours.", table=claims_table(numbers["claims"])),
            Section(
                "Sharpness over its threshold",
                "At 1 the steps of the optimizer become unstable on a quadratic of this curvature: 2/lr for gradient descent "
                "and RMSprop, 3.8/lr for momentum 0.9, 38/lr for Adam.",
                _ratios(numbers),
                alternative="Sharpness over the threshold against steps, one line for each optimizer and activation",
            ),
            Section(
                "Loss",
                "At the edge it falls over many steps, not at each of them.",
                _losses(numbers),
                alternative="Training loss against steps",
            ),
        ],
    )


def _groups(numbers: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(name, {key: run for key, run in numbers["runs"].items() if key.endswith(f", {name}")}) for name in ACTIVATIONS]


def _ratios(numbers: dict[str, Any]) -> Figure:
    with figure(2) as (sheet, places):
        for axes, (title, runs) in zip(places, _groups(numbers), strict=True):
            axes.axhline(1.0, color="black", linewidth=0.8, linestyle="--")
            for (label, run), colour in zip(runs.items(), CYCLE, strict=False):
                looks = run["rows"]
                axes.plot(
                    [row["step"] for row in looks],
                    [row["ratio"] for row in looks],
                    color=colour,
                    linewidth=1,
                    label=label.split(",")[0],
                )
            axes.set(title=title, xlabel="step", ylim=(0, None))
        places[0].set_ylabel("sharpness over threshold")
        places[0].legend(loc="lower right")
    return sheet


def _losses(numbers: dict[str, Any]) -> Figure:
    with figure(2) as (sheet, places):
        for axes, (title, runs) in zip(places, _groups(numbers), strict=True):
            for (label, run), colour in zip(runs.items(), CYCLE, strict=False):
                axes.plot(run["losses"], color=colour, linewidth=0.6, label=label.split(",")[0])
            axes.set(title=title, xlabel="step", yscale="log")
        places[0].set_ylabel("loss")
        places[1].legend(loc="upper right")
    return sheet


STUDY = Study(
    "edge-of-stability",
    "Full-batch training holds its sharpness at the threshold of its optimizer",
    "Cohen et al. 2021 (GD, momentum) and 2022 (RMSprop, Adam): sharpness along full-batch training",
    PRESETS,
    {"quick": "2 minutes", "paper": "1 hour (estimated)"},
    measure,
    document,
)
