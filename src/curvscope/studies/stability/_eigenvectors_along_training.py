"""Top eigenvectors along training: how far their space moves, and on how few parameters they sit (after arXiv 2606.30226)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from curvscope.operators import CurvatureOperator, hessian
from curvscope.report import CYCLE, Document, Section, figure
from curvscope.solvers import eigsh
from curvscope.studies.engine import Stages, Study, claim, claims_table
from curvscope.studies.sagun import digits, mlp
from curvscope.subspaces import participation_ratio

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"SGD": torch.optim.SGD, "Adam": torch.optim.Adam}


@dataclass(frozen=True)
class EigenvectorConfig:
    """Network, training and looks."""

    hidden: int = 32
    sgd_rate: float = 0.1
    adam_rate: float = 1e-3
    batch: int = 50
    steps: int = 1000
    every: int = 100
    k: int = 10
    tol: float = 1e-2
    seed: int = 0


PRESETS = {"quick": EigenvectorConfig(), "paper": EigenvectorConfig(hidden=100, steps=10_000, every=500)}


def measure(stages: Stages, config: EigenvectorConfig, data: Path | None) -> dict[str, Any]:
    """Train with each optimizer from the same start."""
    pair = digits(data)
    runs = {name: stages.numbers(f"along-{name.lower()}", partial(_run, pair, name, config)) for name in OPTIMIZERS}
    numbers = {"config": asdict(config), "runs": runs}
    return numbers | {"claims": _claims(runs, config)}


def _run(pair: Any, name: str, config: EigenvectorConfig) -> dict[str, Any]:
    """Mini-batch training; at each look the top eigenvectors of the Hessian on all samples."""
    x, y = pair
    model, criterion = mlp((x.shape[1], config.hidden, config.hidden, 10), nn.Tanh, config.seed), nn.CrossEntropyLoss()
    rate = config.sgd_rate if name == "SGD" else config.adam_rate
    optimizer, random = OPTIMIZERS[name](model.parameters(), lr=rate), torch.Generator().manual_seed(config.seed)
    H = hessian(model, criterion, [pair], strategy="split_vmap:16")
    rows: list[dict[str, Any]] = []
    first = last = None
    for step in range(config.steps + 1):
        if step % config.every == 0:
            H.move()
            solution = eigsh(H, config.k, method="krylov", tol=config.tol, v0=last, seed=config.seed, progress=False)
            vectors = solution.eigenvectors.to_tensor()
            first = vectors if first is None else first
            rows.append(
                {
                    "step": step,
                    "loss": H.objective.mean_loss,
                    "from_start": 1 - _overlap(vectors, first),
                    "from_last": 0.0 if last is None else 1 - _overlap(vectors, last),
                    "ratios": participation_ratio(vectors).tolist(),
                    "nulls": _matched(H, vectors),
                }
            )
            last = vectors
        chosen = torch.randint(len(y), (config.batch,), generator=random, device="cpu")
        optimizer.zero_grad()
        criterion(model(x[chosen]), y[chosen]).backward()
        optimizer.step()
    return {"rate": rate, "size": H.shape[0], "rows": rows}


def _overlap(left: Tensor, right: Tensor) -> float:
    """Mean squared cosine of the principal angles: 1 for equal spaces, about k/D for random ones."""
    return float((left.T @ right).square().sum()) / left.shape[1]


def _matched(operator: CurvatureOperator, vectors: Tensor) -> list[float]:
    r"""Participation ratio of random vectors with each eigenvector's mass in every parameter tensor.

    Gaussian entries within a tensor of n entries and mass m have fourth moments that sum to about 3 m^2 / (n + 2).
    """
    sums = torch.zeros(vectors.shape[1], dtype=torch.float64, device="cpu")
    for place in operator.parameters.slices.values():
        part = vectors[place].double()
        sums += 3 * part.square().sum(dim=0).square().cpu() / (len(part) + 2)
    found: list[float] = (1 / sums).tolist()
    return found


def _localisation(row: dict[str, Any]) -> float:
    """Mean over the eigenvectors of participation ratio over that of the null: below 1, on fewer parameters than by chance."""
    shares = [ratio / null for ratio, null in zip(row["ratios"], row["nulls"], strict=True)]
    return float(sum(shares) / len(shares))


def _claims(runs: dict[str, Any], config: EigenvectorConfig) -> list[dict[str, Any]]:
    rows = []
    for name, run in runs.items():
        looks = run["rows"]
        moved, chance = looks[-1]["from_start"], 1 - config.k / run["size"]
        early, late = looks[min(1, len(looks) - 1)]["from_last"], looks[-1]["from_last"]
        localised = [_localisation(row) for row in looks]
        rows += [
            claim(name, "the top space leaves that of the start: more than half", f"{moved:.2f} of 1", moved > 0.5),
            claim(
                name, "it stays nearer to it than a random space", f"{moved:.3f}, random {chance:.3f}", moved < chance - 0.01
            ),
            claim(name, "it moves less between looks late than early", f"{early:.2f}, then {late:.2f}", late < early),
            claim(
                name,
                "eigenvectors sit on fewer parameters than random ones with the same mass in every layer: at most half",
                f"{max(localised):.2f} at most, {localised[-1]:.2f} at the end",
                max(localised) <= 0.5,
            ),
        ]
    ends = [_localisation(run["rows"][-1]) for run in runs.values()]
    rows.append(claim("both", "localisation at the end, SGD and Adam", f"{ends[0]:.3f} and {ends[1]:.3f}", None))
    return rows


def document(numbers: dict[str, Any]) -> Document:
    """The page."""
    config = numbers["config"]
    return Document(
        title="Top eigenvectors along training",
        summary=f"A fully connected tanh network ({config['hidden']} hidden units, two layers), cross-entropy on 500 images of "
        f"16 x 16 MNIST, batches of {config['batch']}; {config['k']} eigenvectors of the Hessian with the largest magnitudes.",
        sections=[
            Section("Claims", "Claims and pass marks are ours.", table=claims_table(numbers["claims"])),
            Section(
                "Displacement",
                "1 less the mean squared cosine of the principal angles, to the space at the start (solid) and at the look "
                "before (dashed).",
                _displacement(numbers),
                alternative="Displacement of the top space against steps",
            ),
            Section(
                "Localisation",
                "Participation ratio over that of Gaussian vectors with the same mass in every parameter tensor, mean over the "
                "eigenvectors: 1 by chance.",
                _localisations(numbers),
                alternative="Participation ratio over its null against steps",
            ),
        ],
    )


def _displacement(numbers: dict[str, Any]) -> Figure:
    with figure(width=5.5) as (sheet, (axes,)):
        for (name, run), colour in zip(numbers["runs"].items(), CYCLE, strict=False):
            steps = [row["step"] for row in run["rows"]]
            axes.plot(steps, [row["from_start"] for row in run["rows"]], color=colour, label=name)
            axes.plot(steps[1:], [row["from_last"] for row in run["rows"][1:]], color=colour, linestyle="--")
        axes.set(xlabel="step", ylabel="displacement", ylim=(0, 1))
        axes.legend(loc="best")
    return sheet


def _localisations(numbers: dict[str, Any]) -> Figure:
    with figure(width=5.5) as (sheet, (axes,)):
        for (name, run), colour in zip(numbers["runs"].items(), CYCLE, strict=False):
            axes.plot(
                [row["step"] for row in run["rows"]], [_localisation(row) for row in run["rows"]], color=colour, label=name
            )
        axes.set(xlabel="step", ylabel="participation ratio over null", ylim=(0, None))
        axes.legend(loc="best")
    return sheet


STUDY = Study(
    "eigenvectors-along-training",
    "How far top eigenvectors move in training, and on how few parameters they sit",
    "after arXiv 2606.30226: displacement and localisation, SGD and Adam",
    PRESETS,
    {"quick": "1 minute", "paper": "30 minutes (estimated)"},
    measure,
    document,
)
