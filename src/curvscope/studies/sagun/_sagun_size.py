"""A wider network adds zeros: right edge, left edge and bulk against the width (Sagun et al.)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn

from curvscope.errors import InvalidArgument
from curvscope.estimators import RULES, Density, density
from curvscope.report import CYCLE, Document, Section, figure
from curvscope.studies.engine import Stages, Study, claim, claims_table
from curvscope.studies.sagun._small import blobs, descend, digits, hessian_of, mlp

CLASSES = 10
NEAR, NEGATIVE = 1e-3, 1e-3
VISIBLE = 1e-2
"""Share of the largest eigenvalue at the start below which an eigenvalue counts as zero: what one sees in a plot."""


@dataclass(frozen=True)
class SizeConfig:
    """Widths of the hidden layer, training, and the quadrature."""

    widths: tuple[int, ...] = (10, 30, 50, 70)
    rate: float = 0.2
    steps: int = 1500
    num_probes: int = 4
    num_steps: int = 80
    clusters: int = 50
    cluster_steps: int = 3000
    seed: int = 0


PRESETS = {"quick": SizeConfig(), "paper": SizeConfig(steps=10_000, num_probes=10, num_steps=200, cluster_steps=30_000)}


def measure(stages: Stages, config: SizeConfig, data: Path | None) -> dict[str, Any]:
    """A stage for each width."""
    if list(config.widths) != sorted(set(config.widths)) or len(config.widths) < 2:
        raise InvalidArgument(f"widths={config.widths}: choose at least two, ascending, for they are compared")
    pair = digits(data)
    cells = {str(h): stages.numbers(f"width-{h:03d}", partial(_width, h, pair, config)) for h in config.widths}
    deep = stages.numbers("two-layers", lambda: _two_layers(config))
    numbers = {"config": asdict(config), "widths": cells, "two_layers": deep}
    return numbers | {"claims": _claims(numbers)}


def _width(hidden: int, pair: Any, config: SizeConfig) -> dict[str, Any]:
    model = mlp((pair[0].shape[1], hidden, CLASSES), nn.ReLU, config.seed)
    start = _spectrum(model, pair, config)
    descend(model, pair, rate=config.rate, steps=config.steps)
    return {"start": start, "end": _spectrum(model, pair, config)}


def _two_layers(config: SizeConfig) -> dict[str, Any]:
    """The 100-30-30-50 network (D = 5,510) on as many Gaussian clusters, before and after gradient descent."""
    k = config.clusters
    centers = torch.randn(k, 100, generator=torch.Generator().manual_seed(config.seed), dtype=torch.float64, device="cpu")
    x, y = blobs(centers, 1.0, max(1, 1000 // k), seed=config.seed)
    pair = ((x - x.mean()) / x.std(), y)
    model = mlp((100, 30, 30, k), nn.ReLU, config.seed)
    found = {"start": _density(model, pair, config)}
    descend(model, pair, rate=0.5, steps=config.cluster_steps)
    found["end"] = _density(model, pair, config)
    near = VISIBLE * found["start"].range[1]
    return {
        when: {"D": whole.size, "range": list(whole.range), "near": _share(whole, -near, near)} for when, whole in found.items()
    }


def _density(model: nn.Module, pair: Any, config: SizeConfig) -> Density:
    options: dict[str, Any] = {"num_probes": config.num_probes, "num_steps": config.num_steps, "seed": config.seed}
    return density(hessian_of(model, pair), method="lanczos", progress=False, **options)


def _spectrum(model: nn.Module, pair: Any, config: SizeConfig) -> dict[str, Any]:
    found = _density(model, pair, config)
    low, high = found.range
    grid, values = _curve(found)
    return {
        "D": found.size,
        "range": [low, high],
        "top": found.extremes()[:40].tolist(),
        "bottom": found.extremes(largest=False)[:40].tolist(),
        "outliers": {rule: found.outliers(rule) for rule in RULES},
        "near_zero": _share(found, -NEAR * high, NEAR * high),
        "negative": _share(found, -float("inf"), -NEGATIVE * high),
        "grid": grid,
        "density": values,
    }


def _share(found: Density, low: float, high: float) -> list[float]:
    mass = found.mass(low, high)
    return [mass.value, mass.stderr]


def _curve(found: Density) -> tuple[list[float], list[float]]:
    grid, values = found.logarithmic(60, floor=1e-5 * max(found.range))
    return grid.tolist(), values.tolist()


def _claims(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    ends = [cell["end"] for cell in numbers["widths"].values()]
    first = [end["top"][: CLASSES - 1] for end in ends]
    changes = [max(values) / min(values) - 1 for values in zip(*first, strict=False)]
    near = [end["near_zero"][0] for end in ends]
    ratios = [abs(min(end["range"][0], 0.0)) / end["range"][1] for end in ends]
    (last, unsure), (other, _) = (ends[i]["negative"] for i in (-1, -2))
    differ = abs(last - other) / max(last, other) if max(last, other) else 0.0
    grown = ends[-1]["D"] / ends[0]["D"]
    return [
        _spread_claim(numbers["two_layers"]),
        claim(
            "width",
            f"each of the top {CLASSES - 1} changes by < 60 % while D grows x{grown:.1f}",
            ", ".join(f"{change:.0%}" for change in changes),
            max(changes) < 0.6,
        ),
        claim(
            "width",
            f"the share of |lambda| < {NEAR:g} max grows with the width",
            ", ".join(f"{share:.3f}" for share in near),
            near[-1] > near[0],
        ),
        claim("negative values", "|min| / max <= 1e-2", ", ".join(f"{ratio:.1e}" for ratio in ratios), max(ratios) <= 1e-2),
        claim(
            "negative values",
            f"the share below -{NEGATIVE:g} max differs by < 25 % between the two largest widths",
            f"{other:.4f}, {last:.4f} +- {unsure:.1g}",
            differ < 0.25,
        ),
    ]


def _spread_claim(deep: dict[str, Any]) -> dict[str, Any]:
    (low, high), (lowest, largest) = (deep[when]["range"] for when in ("start", "end"))
    before, after = (deep[when]["near"][0] for when in ("start", "end"))
    return claim(
        "start and end",
        f"two hidden layers, D = {deep['end']['D']:,}: both signs at the start; at the end >= 90 % of the magnitudes, and all "
        f"negative ones, below {VISIBLE:g} of the first maximum",
        f"{low:.2g} to {high:.2g}, then {lowest:.1g} to {largest:.2g}; {before:.0%}, then {after:.0%}",
        low < -0.1 * high and after > before and after >= 0.9 and lowest >= -VISIBLE * high,
    )


def document(numbers: dict[str, Any]) -> Document:
    """The page."""
    return Document(
        title="A wider network adds zeros",
        summary="One hidden layer (ReLU) on 500 images of 16 x 16 MNIST (the paper: 1,000 of 28 x 28), full-batch gradient "
        "descent with the same step and number of updates at every width; start and end: two hidden layers on 50 "
        "Gaussian clusters. Shares are estimates with standard errors.",
        sections=[
            Section("Claims", "Pass marks are ours.", table=claims_table(numbers["claims"])),
            Section(
                "The right edge",
                "The largest eigenvalues after training, as far as the quadrature resolves them.",
                _edges(numbers, "top"),
                alternative="Largest eigenvalues against rank for each width",
                shows="figure 3",
            ),
            Section(
                "The left edge",
                "The most negative ones, against rank / D.",
                _edges(numbers, "bottom"),
                alternative="Most negative eigenvalues for each width",
                shows="figure 5",
            ),
            Section(
                "Before and after training",
                "Shares of positive eigenvalues a decade.",
                _densities(numbers),
                alternative="Spectral density before and after training",
                shows="figure 1",
            ),
        ],
    )


def _edges(numbers: dict[str, Any], end: str) -> Figure:
    with figure(width=5.5) as (sheet, (axes,)):
        for (width, cell), colour in zip(numbers["widths"].items(), CYCLE, strict=False):
            values, size = cell["end"][end], cell["end"]["D"]
            ranks = [(i + 1) / (1 if end == "top" else size) for i in range(len(values))]
            axes.plot(ranks, values, color=colour, marker=".", markersize=3, linewidth=0.8, label=f"h = {width}, D = {size:,}")
        axes.set(xlabel="rank" if end == "top" else "rank / D", ylabel="eigenvalue")
        if end == "top":
            axes.set_yscale("log")
        axes.legend(loc="best")
    return sheet


def _densities(numbers: dict[str, Any]) -> Figure:
    with figure(2, sharey=True) as (sheet, places):
        for axes, when in zip(places, ("start", "end"), strict=True):
            for (width, cell), colour in zip(numbers["widths"].items(), CYCLE, strict=False):
                axes.step(cell[when]["grid"], cell[when]["density"], where="mid", color=colour, label=f"h = {width}")
            axes.set(title=when, xscale="log", xlabel="eigenvalue", yscale="log")
        places[0].set_ylabel("share a decade")
        places[0].legend(loc="best")
    return sheet


STUDY = Study(
    "sagun-size",
    "A wider network adds zeros: edges and bulk against the width",
    "Sagun et al. 2017: figures 1, 3, 5",
    PRESETS,
    {"quick": "1 minute", "paper": "5 minutes"},
    measure,
    document,
)
