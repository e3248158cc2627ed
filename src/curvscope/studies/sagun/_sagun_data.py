"""Outliers depend on the data, the bulk on the size (Sagun et al.)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn

from curvscope.estimators import RULES, count_outliers, density
from curvscope.report import CYCLE, GREY, Document, Section, figure
from curvscope.sampling import population
from curvscope.solvers import eigsh
from curvscope.studies.engine import (
    UNDECIDED,
    Stages,
    Study,
    Verdict,
    claim,
    claims_table,
    share_holding,
    share_verdict,
    summary,
    verdict,
)
from curvscope.studies.sagun._clusters import (
    cluster_claims,
    clusters,
    figure_random,
    figure_tops,
    random_points,
    singularity_claims,
    table_clusters,
)
from curvscope.studies.sagun._small import blobs, descend, descend_together, hessian_of, mlp

CENTERS = torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=torch.float64, device="cpu")
FRESH = 500
"""Samples of each blob that no network was trained on, for intervals over the choice of the data."""
AT_ONCE = 100
"""Initialisations that are trained at once; a stage of the study."""


@dataclass(frozen=True)
class DataConfig:
    """Widths and deviations of the small network, cells of the larger one."""

    widths: tuple[int, ...] = (2, 6, 10, 14, 18)
    deviations: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 1.0)
    deviation_width: int = 14
    seeds: int = 5
    starts: int = 40
    gradient_norm: float = 1e-3
    small_steps: int = 8000
    classes: tuple[int, ...] = (2, 5, 10)
    variances: tuple[float, ...] = (1.0,)
    samples: int = 500
    steps: int = 600
    num_probes: int = 3
    num_steps: int = 60
    seed: int = 0


PRESETS = {
    "quick": DataConfig(),
    "paper": DataConfig(
        starts=5000,
        gradient_norm=1e-4,
        small_steps=200_000,
        classes=(2, 5, 10, 20, 50),
        variances=(1.0, 10.0),
        samples=5000,
        steps=3000,
        num_steps=150,
    ),
}


def measure(stages: Stages, config: DataConfig, data: Path | None) -> dict[str, Any]:
    """A stage for each part."""

    def networks(name: str, cells: dict[str, tuple[int, float, int]], fresh: bool = False) -> dict[str, Any]:
        """A stage of networks by key: width, deviation and seed of each."""
        return stages.numbers(
            name, lambda: {key: _two_blobs(*cell, config, fresh and not cell[2]) for key, cell in cells.items()}
        )

    wide, seeds = config.deviation_width, range(config.seeds)
    sizes = networks("sizes", {f"{h} {s}": (h, 0.2, s) for h, s in product(config.widths, seeds)})
    spreads = networks("spreads", {f"{d} {s}": (wide, d, s) for d, s in product(config.deviations, seeds)}, fresh=True)
    groups = {first: range(first, min(first + AT_ONCE, config.starts)) for first in range(0, config.starts, AT_ONCE)}
    found = [stages.numbers(f"starts-{first:05d}", partial(_starts, group, config)) for first, group in groups.items()]
    starts = {"tops": [top for each in found for top in each["tops"]]}
    numbers = {"config": asdict(config), "sizes": sizes, "spreads": spreads, "starts": starts}
    numbers |= {"clusters": clusters(stages, config), "random": stages.numbers("random", lambda: random_points(config))}
    return numbers | {"claims": _claims(numbers)}


def _two_blobs(width: int, deviation: float, seed: int, config: DataConfig, fresh: bool = False) -> dict[str, Any]:
    """All eigenvalues of the 2-h-h-2 network at the end of gradient descent, and the top one on fresh samples if asked for."""
    pair = blobs(CENTERS, deviation, 100, config.seed + seed)
    model = mlp((2, width, width, 2), nn.ReLU, config.seed + seed)
    made = descend(model, pair, rate=0.5, steps=config.small_steps, until=config.gradient_norm)
    values = density(hessian_of(model, pair), method="exact", progress=False).exact.flip(0)
    found = {"updates": made, "eigenvalues": values.tolist(), "outliers": {r: count_outliers(values, r) for r in RULES}}
    return found | {"fresh": _on_fresh_samples(model, deviation, config)} if fresh else found


def _on_fresh_samples(model: nn.Module, deviation: float, config: DataConfig) -> dict[str, Any]:
    """The top eigenvalue on samples of the blobs that the network was not trained on, with its sampling interval."""
    H = hessian_of(model, blobs(CENTERS, deviation, FRESH, config.seed + config.seeds))
    found = population(H, eigsh(H, 1, which="LA", progress=False), progress=False)
    return {"top": float(found.eigenvalues[0]), "interval": found.best_interval[0].tolist()}


def _starts(seeds: range, config: DataConfig) -> dict[str, Any]:
    """The top eigenvalue after training from some of many initialisations on the same two blobs."""
    width = config.deviation_width
    pair = blobs(CENTERS, config.deviations[0], 100, config.seed)
    models = [mlp((2, width, width, 2), nn.ReLU, config.seed + seed) for seed in seeds]
    descend_together(models, pair, rate=0.5, steps=config.small_steps, until=config.gradient_norm)
    present, tops = mlp((2, width, width, 2), nn.ReLU, config.seed), []
    H = hessian_of(present, pair)  # traced once for all
    for model in models:
        present.load_state_dict(model.state_dict())
        H.move()
        tops.append(float(density(H, method="exact", progress=False).exact[-1]))
    return {"tops": tops}


def _claims(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for rule in RULES:
        found = [cell["outliers"][rule] == 2 for name, cell in numbers["sizes"].items() if int(name.split()[0]) >= 6]
        judged = share_verdict(sum(found), len(found), 0.8) if rule == "ratio" else None
        what = f"2 outliers, by {rule}, at every width h >= 6, in >= 80 % of networks"
        rows.append(claim("outliers", what, share_holding(found)[0], judged))
    tops = _spread_tops(numbers)
    means, medians = ([average(row) for row in tops] for average in (fmean, median))
    grown = [last - 20 * first for first, last in zip(tops[0], tops[-1], strict=True)]
    rows.append(
        claim(
            "data spread",
            "the top eigenvalue at the largest spread is >= 20 times that at the smallest",
            f"{summary(tops[-1], '.2g')} and {summary(tops[0], '.2g')}",
            verdict(grown, least=0.0),
        )
    )
    for name, values in (("means", means), ("medians", medians)):
        rows.append(
            claim(
                "data spread",
                f"the {name} of the top eigenvalue grow with every spread",
                _listed(values),
                all(a < b for a, b in pairwise(values)),
            )
        )
    rows += _start_claims(numbers, means)
    rows += _sampling_claims(_fresh(numbers))
    rows += cluster_claims(numbers["clusters"])
    rows += singularity_claims(numbers["random"])
    return rows


def _fresh(numbers: dict[str, Any]) -> dict[str, Any]:
    """Return what was found on fresh samples by deviation; nothing in runs of earlier versions."""
    cells = {deviation: numbers["spreads"][f"{deviation} 0"].get("fresh") for deviation in numbers["config"]["deviations"]}
    return {str(deviation): found for deviation, found in cells.items() if found is not None}


def _sampling_claims(sampled: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare the top eigenvalues of the narrowest and the widest blobs, with their sampling intervals."""
    if not sampled:
        return []
    ends = [cell["interval"] for cell in sampled.values()]
    listed = "; ".join(f"{deviation}: [{low:.2g}, {high:.2g}]" for deviation, (low, high) in zip(sampled, ends, strict=True))
    what = f"the growth with the spread is the population's: intervals of {2 * FRESH} fresh samples, first and last, are apart"
    (first_low, first_high), (last_low, last_high) = ends[0], ends[-1]
    holds: Verdict = True if last_low > first_high else False if last_high < first_low else UNDECIDED
    return [claim("another sample", what, listed, holds)]


def _start_claims(numbers: dict[str, Any], spread: list[float]) -> list[dict[str, Any]]:
    """Compare the top eigenvalue of the initialisation with those of the data."""
    tops = torch.tensor(numbers["starts"]["tops"], dtype=torch.float64, device="cpu")
    low, middle, high = tops.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64, device="cpu")).tolist()
    return [
        claim(
            "initialisations",
            f"{len(tops)} initialisations: most top eigenvalues within a factor of 2 (the paper's: .018 to .035)",
            f"median {middle:.2g}; 80 % in {low:.2g} to {high:.2g}",
            high <= 2 * low,
        ),
        claim(
            "initialisations",
            "the growth with the spread lies outside of what initialisations do",
            f"largest of all initialisations {float(tops.max()):.2g}; at the largest spread {spread[-1]:.2g}",
            spread[-1] > float(tops.max()),
        ),
    ]


def _spread_tops(numbers: dict[str, Any]) -> list[list[float]]:
    """For every standard deviation the top eigenvalue from each seed."""
    config = numbers["config"]
    names = [[f"{deviation} {seed}" for seed in range(config["seeds"])] for deviation in config["deviations"]]
    return [[numbers["spreads"][name]["eigenvalues"][0] for name in row] for row in names]


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2g}" for value in values)


def document(numbers: dict[str, Any]) -> Document:
    """The page."""
    return Document(
        title="Outliers depend on the data",
        summary="Hessians of small networks on Gaussian blobs, after Sagun, Bottou and LeCun (2016) and Sagun et al. (2017). "
        "Step sizes, numbers of samples and centers are not given there: ours are 0.5 (two blobs) and 0.1 (clusters), 200 and "
        "1,000 (paper preset: 5,000), and standard normal centers.",
        sections=[
            Section("Claims", "Pass marks are ours.", table=claims_table(numbers["claims"])),
            Section(
                "Growing the network adds zeros",
                "All eigenvalues of 2-h-h-2 networks on two blobs, by rank; a line a width, seed 0.",
                _spectra(numbers),
                alternative="Eigenvalue against rank over D for each width",
                shows="figures 3 to 5 of 2016",
            ),
            Section(
                "Wider blobs, larger outliers",
                "The largest eigenvalue against the standard deviation of the blobs, a dot a seed. Bars: where the "
                "population's lies, from fresh samples at the parameters of seed 0.",
                _spreads(numbers),
                alternative="Top eigenvalue against spread",
                shows="figure 7 of 2016",
            ),
            Section(
                "What the initialisation does",
                "Largest eigenvalues of the same network on the same two blobs, from other initial parameters.",
                _drawn_tops(numbers),
                alternative="Histogram of top eigenvalues over initialisations",
                shows="figure 6 of 2016",
            ),
            Section(
                "As many outliers as classes?",
                "Largest eigenvalues of 100-30-30-k networks, means over networks with their range shaded; the "
                "dashed line is the "
                "number of clusters.",
                figure_tops(numbers),
                alternative="Largest eigenvalues for each number of clusters",
                shows="figure 2 of 2017",
            ),
            Section(
                "Outliers by three rules, and those of the gradients",
                "Numbers of outliers of the Hessian and of the covariance of the gradients of the samples: mean over networks "
                "(smallest to largest).",
                table=table_clusters(numbers["clusters"]),
                shows="table 1 of 2017",
            ),
            Section(
                "Singular at random points",
                "Share of the eigenvalues whose magnitude is below a thousandth of the largest, at random parameters, and of "
                "symmetric Gaussian matrices of the same size.",
                figure_random(numbers["random"]),
                alternative="Share of eigenvalues near zero against D, for Hessians and Gaussian matrices",
            ),
        ],
    )


def _spectra(numbers: dict[str, Any]) -> Figure:
    with figure() as (sheet, (axes,)):
        for width, colour in zip(numbers["config"]["widths"], CYCLE, strict=False):
            values = numbers["sizes"][f"{width} 0"]["eigenvalues"]
            ranks = [i / len(values) for i in range(len(values))]
            axes.plot(
                ranks, values, color=colour, marker=".", markersize=3, linewidth=0.8, label=f"h = {width}, D = {len(values)}"
            )
        axes.set(xlabel="rank / D", ylabel="eigenvalue", yscale="symlog")
        axes.set_yscale("symlog", linthresh=1e-5)
        axes.legend(loc="best")
    return sheet


def _spreads(numbers: dict[str, Any]) -> Figure:
    deviations, tops = numbers["config"]["deviations"], _spread_tops(numbers)
    with figure(width=5.0) as (sheet, (axes,)):
        axes.plot(deviations, tops, "o", color=GREY, markersize=4)
        errors = [stdev(row) / len(row) ** 0.5 if len(row) > 1 else 0.0 for row in tops]
        low = [max(fmean(row) - 2 * error, min(row)) for row, error in zip(tops, errors, strict=True)]
        high = [fmean(row) + 2 * error for row, error in zip(tops, errors, strict=True)]
        axes.fill_between(deviations, low, high, color=CYCLE[0], alpha=0.2, linewidth=0)
        averages: dict[str, Callable[[Sequence[float]], float]] = {"mean": fmean, "median": median}
        for (name, average), colour in zip(averages.items(), CYCLE, strict=False):
            axes.plot(deviations, [average(row) for row in tops], color=colour, label=name)
        if fresh := _fresh(numbers):
            lower, upper = zip(*(cell["interval"] for cell in fresh.values()), strict=True)
            floor = min(map(min, tops)) / 10
            bars: dict[str, Any] = {"color": CYCLE[2], "linewidth": 4, "alpha": 0.5, "label": "population, sampling interval"}
            axes.vlines(deviations, [max(end, floor) for end in lower], upper, **bars)
        axes.set(xlabel="standard deviation of the blobs", ylabel="largest eigenvalue", yscale="log")
        axes.legend(loc="best")
    return sheet


def _drawn_tops(numbers: dict[str, Any]) -> Figure:
    with figure(width=5.0) as (sheet, (axes,)):
        axes.hist(numbers["starts"]["tops"], bins=30, color=CYCLE[0])
        axes.set(xlabel="largest eigenvalue", ylabel="initialisations")
        axes.locator_params(axis="x", nbins=5)  # long numbers, close together
    return sheet


STUDY = Study(
    "sagun-data",
    "Outliers depend on the data, the bulk on the size",
    "Sagun et al. 2017: figure 2, table 1; Sagun, Bottou, LeCun 2016: figures 3-7",
    PRESETS,
    {"quick": "a few minutes (not measured)", "paper": "hours, 40 minutes of it for 5,000 initialisations"},
    measure,
    document,
)
