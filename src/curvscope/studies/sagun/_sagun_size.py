"""A wider network adds zeros: right edge, left edge and bulk against the width (Sagun et al.)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn

from curvscope.errors import InvalidArgument
from curvscope.estimators import RULES, Density, density
from curvscope.report import CYCLE, Document, Section, figure
from curvscope.studies.engine import (
    UNDECIDED,
    Stages,
    Study,
    Verdict,
    claim,
    claims_table,
    half_width,
    share_holding,
    share_verdict,
    summary,
    verdict,
)
from curvscope.studies.sagun._small import blobs, descend, digits, hessian_of, mlp

CLASSES = 10
NEAR, NEGATIVE = 1e-3, 1e-3
"""Shares of the largest eigenvalue up to which one counts as near zero, and below minus which one counts as negative."""
VISIBLE = 1e-2
"""Share of the largest eigenvalue at the start below which an eigenvalue counts as zero: what one sees in a plot."""
IMAGES = {16: "500 images of 16 x 16 MNIST (the paper: 1,000 of 28 x 28)", 28: "1,000 images of 28 x 28 MNIST"}


@dataclass(frozen=True)
class SizeConfig:
    """Widths of the hidden layer, training, and the quadrature; ``side``: of the digits, 28 needs ``--data``."""

    widths: tuple[int, ...] = (10, 30, 70)
    rate: float = 0.2
    steps: int = 1000
    num_probes: int = 3
    num_steps: int = 60
    clusters: int = 50
    cluster_steps: int = 2000
    side: int = 16
    seeds: int = 5
    seed: int = 0


PRESETS = {
    "quick": SizeConfig(),
    "paper": SizeConfig(widths=(10, 30, 50, 70), steps=10_000, num_probes=10, num_steps=200, cluster_steps=30_000, side=28),
}


def measure(stages: Stages, config: SizeConfig, data: Path | None) -> dict[str, Any]:
    """A stage for each width."""
    if list(config.widths) != sorted(set(config.widths)) or len(config.widths) < 2:
        raise InvalidArgument(f"widths={config.widths}: choose at least two, ascending, for they are compared")
    if config.side not in (16, 28):
        raise InvalidArgument(f"side={config.side}: choose 16 or 28")
    pair, seeds = digits(data, side=config.side), range(config.seeds)
    cells = {
        str(h): [stages.numbers(f"width-{h:03d}-{seed}", partial(_width, h, pair, seed, config)) for seed in seeds]
        for h in config.widths
    }
    deep = [stages.numbers(f"two-layers-{seed}", partial(_two_layers, seed, config)) for seed in seeds]
    numbers = {"config": asdict(config), "widths": cells, "two_layers": deep}
    return numbers | {"claims": _claims(numbers)}


def _width(hidden: int, pair: Any, seed: int, config: SizeConfig) -> dict[str, Any]:
    model = mlp((pair[0].shape[1], hidden, CLASSES), nn.ReLU, config.seed + seed)
    start = _spectrum(model, pair, config)
    descend(model, pair, rate=config.rate, steps=config.steps)
    return {"start": start, "end": _spectrum(model, pair, config)}


def _two_layers(seed: int, config: SizeConfig) -> dict[str, Any]:
    """The 100-30-30-50 network (D = 5,510) on as many Gaussian clusters, before and after gradient descent."""
    k = config.clusters
    centers = torch.randn(
        k, 100, generator=torch.Generator().manual_seed(config.seed + seed), dtype=torch.float64, device="cpu"
    )
    x, y = blobs(centers, 1.0, max(1, 1000 // k), seed=config.seed + seed)
    pair = ((x - x.mean()) / x.std(), y)
    model = mlp((100, 30, 30, k), nn.ReLU, config.seed + seed)
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
    """Each claim with its mark, the mean over networks, and whether that is decided."""
    ends = {width: [network["end"] for network in networks] for width, networks in numbers["widths"].items()}
    sizes = [own[0]["D"] for own in ends.values()]
    changes = _changes(list(ends.values()))
    near = {width: [end["near_zero"][0] for end in own] for width, own in ends.items()}
    first, *_, last = near.values()
    ratios = {width: [abs(min(end["range"][0], 0.0)) / end["range"][1] for end in own] for width, own in ends.items()}
    worst = max(changes, key=fmean)
    lowest = max(ratios.values(), key=fmean)
    return [
        *_spread_claims(numbers["two_layers"]),
        claim(
            "width",
            f"each of the top {CLASSES - 1} changes by < 60 % while D grows x{sizes[-1] / sizes[0]:.1f}",
            f"means {', '.join(f'{fmean(each):.0%}' for each in changes)}; the largest {summary(worst)}",
            _all([verdict(each, most=0.6) for each in changes]),
        ),
        claim(
            "width",
            f"the share of |lambda| < {NEAR:g} max grows with the width",
            "; ".join(f"h = {width}: {summary(shares, '.4f')}" for width, shares in near.items()),
            verdict([b - a for a, b in zip(first, last, strict=True)], least=0.0),
        ),
        claim("negative values", "|min| / max <= 1e-2", f"the largest {summary(lowest, '.1e')}", verdict(lowest, most=1e-2)),
        _negative_claim(ends),
    ]


def _changes(ends: list[list[dict[str, Any]]]) -> list[list[float]]:
    """For each of the top eigenvalues: largest over smallest of the widths, minus 1, of every network's seed."""
    found: list[list[float]] = []
    for rank in range(CLASSES - 1):
        values = [[own[seed]["top"][rank] for own in ends if rank < len(own[seed]["top"])] for seed in range(len(ends[0]))]
        if all(len(each) == len(ends) for each in values):
            found.append([max(each) / min(each) - 1 for each in values])
    return found


def _negative_claim(ends: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Shares of negative values at the two largest widths: their difference with the errors of quadrature and of networks."""
    (other, before), (last, after) = list(ends.items())[-2:]
    shares = [[end["negative"][0] for end in own] for own in (before, after)]
    errors = [[end["negative"][1] for end in own] for own in (before, after)]
    larger = max(fmean(each) for each in shares)
    differ = abs(fmean(shares[0]) - fmean(shares[1])) / larger if larger else 0.0
    spread = sum(half_width(each) ** 2 for each in shares) ** 0.5
    drawn = 2 * sum(fmean([e * e for e in each]) / len(each) for each in errors) ** 0.5
    unsure = (spread**2 + drawn**2) ** 0.5 / larger if larger else 0.0
    holds: Verdict = True if differ + unsure < 0.25 else False if differ - unsure >= 0.25 else UNDECIDED
    return claim(
        "negative values",
        f"the share below -{NEGATIVE:g} max differs by < 25 % between the two largest widths",
        f"h = {other}: {summary(shares[0], '.4f')}; h = {last}: {summary(shares[1], '.4f')}; {differ:.0%} ± {unsure:.0%}",
        holds,
    )


def _all(verdicts: list[Verdict]) -> Verdict:
    """True where all hold, False where one does not, undecided otherwise."""
    return False if any(each is False for each in verdicts) else True if all(each is True for each in verdicts) else UNDECIDED


def _spread_claims(networks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    size = networks[0]["end"]["D"]
    starts, ends = ([each[when]["range"] for each in networks] for when in ("start", "end"))
    before, after = ([each[when]["near"][0] for each in networks] for when in ("start", "end"))
    both = [low < -0.1 * high for low, high in starts]
    inside = [end[0] >= -VISIBLE * start[1] for start, end in zip(starts, ends, strict=True)]
    shown = f"{starts[0][0]:.2g} to {starts[0][1]:.2g}, then {ends[0][0]:.1g} to {ends[0][1]:.2g} in the first network"
    kind = f"two hidden layers, D = {size:,}"
    return [
        claim(
            "start and end", f"{kind}: eigenvalues of both signs at the start", f"{share_holding(both)[0]}; {shown}", all(both)
        ),
        claim(
            "start and end",
            f"{kind}: at the end >= 90 % of the magnitudes lie below {VISIBLE:g} of the first maximum",
            f"{summary(after)}; at the start {summary(before)}",
            verdict(after, least=0.9),
        ),
        claim(
            "start and end",
            f"{kind}: at the end no eigenvalue lies below -{VISIBLE:g} of the first maximum, in >= 50 % of networks",
            share_holding(inside)[0],
            share_verdict(sum(inside), len(inside), 0.5),
        ),
    ]


def document(numbers: dict[str, Any]) -> Document:
    """The page."""
    return Document(
        title="A wider network adds zeros",
        summary=f"One hidden layer (ReLU) on {IMAGES[numbers['config']['side']]}, full-batch gradient descent "
        "with the same step "
        f"and number of updates at every width, {numbers['config']['seeds']} networks each; start and end: two "
        "hidden layers on "
        f"{numbers['config']['clusters']} Gaussian clusters. Shares are estimates with standard errors.",
        sections=[
            Section(
                "Claims",
                "Pass marks are ours. Means over networks with standard errors; a verdict needs the whole 95 % interval on one "
                "side of the mark.",
                table=claims_table(numbers["claims"]),
            ),
            Section(
                "The right edge",
                "The largest eigenvalues after training, as far as the quadrature resolves them: mean and range over networks.",
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
                "Shares of positive eigenvalues a decade, in the first network.",
                _densities(numbers),
                alternative="Spectral density before and after training",
                shows="figure 1",
            ),
        ],
    )


def _edges(numbers: dict[str, Any], end: str) -> Figure:
    with figure(width=5.5) as (sheet, (axes,)):
        for (width, networks), colour in zip(numbers["widths"].items(), CYCLE, strict=False):
            most, size = min(len(each["end"][end]) for each in networks), networks[0]["end"]["D"]
            ranks = [(i + 1) / (1 if end == "top" else size) for i in range(most)]
            columns = list(zip(*(each["end"][end][:most] for each in networks), strict=True))
            axes.fill_between(ranks, [min(c) for c in columns], [max(c) for c in columns], color=colour, alpha=0.15)
            axes.plot(
                ranks,
                [fmean(c) for c in columns],
                color=colour,
                marker=".",
                markersize=3,
                linewidth=0.8,
                label=f"h = {width}, D = {size:,}",
            )
        axes.set(xlabel="rank" if end == "top" else "rank / D", ylabel="eigenvalue")
        if end == "top":
            axes.set_yscale("log")
        axes.legend(loc="best")
    return sheet


def _densities(numbers: dict[str, Any]) -> Figure:
    with figure(2, sharey=True) as (sheet, places):
        for axes, when in zip(places, ("start", "end"), strict=True):
            for (width, networks), colour in zip(numbers["widths"].items(), CYCLE, strict=False):
                cell = networks[0]
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
    {"quick": "a few minutes (not measured)", "paper": "an hour (not measured since it has five networks)"},
    measure,
    document,
)
