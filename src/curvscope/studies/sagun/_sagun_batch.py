"""Small and large batches: curvature at the end, and no barrier between their solutions (Sagun et al.)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor, nn

from curvscope.estimators import RULES, density
from curvscope.operators import Objective
from curvscope.report import CYCLE, Document, Section, figure
from curvscope.studies.engine import Stages, Study, claim, claims_table
from curvscope.studies.sagun._small import descend, digits, hessian_of, mlp
from curvscope.training import interpolate

SPAN, POINTS = (-1.0, 2.0), 22


@dataclass(frozen=True)
class BatchConfig:
    """Network, batches and where to look."""

    hidden: int = 30
    small: int = 10
    large: int = 256
    rate: float = 0.1
    steps: int = 2000
    num_probes: int = 4
    num_steps: int = 60
    looks: int = 8
    seed: int = 0


PRESETS = {"quick": BatchConfig(), "paper": BatchConfig(steps=25_000, num_steps=150)}


def measure(stages: Stages, config: BatchConfig, data: Path | None) -> dict[str, Any]:
    """Curvature after each batch size; then lines."""
    pair = digits(data)
    ends = {
        name: stages.numbers(name, partial(_end, pair, batch, config))
        for name, batch in (("small", config.small), ("large", config.large))
    }
    lines = stages.numbers("lines", lambda: _lines(pair, config))
    segments = stages.numbers("segments", lambda: _segments(pair, config))
    numbers = {"config": asdict(config), "ends": ends, "lines": lines, "segments": segments}
    return numbers | {"claims": _claims(numbers)}


def _network(pair: Any, config: BatchConfig, seed: int) -> nn.Module:
    return mlp((pair[0].shape[1], config.hidden, config.hidden, 10), nn.ReLU, config.seed + seed)


def _end(pair: Any, batch: int, config: BatchConfig) -> dict[str, Any]:
    model = _network(pair, config, 0)
    descend(model, pair, rate=config.rate, steps=config.steps, batch=batch, seed=config.seed)
    options: dict[str, Any] = {"num_probes": config.num_probes, "num_steps": config.num_steps, "seed": config.seed}
    found = density(hessian_of(model, pair), method="lanczos", progress=False, **options)
    return {
        "top": found.extremes()[:40].tolist(),
        "bottom": found.extremes(largest=False)[:40].tolist(),
        "outliers": {rule: found.outliers(rule) for rule in RULES},
    }


def _lines(pair: Any, config: BatchConfig) -> dict[str, Any]:
    """Large batches, then on with small ones from there; and two networks from different initialisations."""
    model = _network(pair, config, 0)
    objective = Objective(model, nn.CrossEntropyLoss(), [pair])
    start = objective.mean_loss
    descend(model, pair, rate=config.rate, steps=config.steps, batch=config.large, seed=config.seed)
    first = _parameters(model)
    descend(model, pair, rate=config.rate, steps=config.steps, batch=config.small, seed=config.seed + 1)
    second, other = _parameters(model), _network(pair, config, 1)
    descend(other, pair, rate=config.rate, steps=config.steps, batch=config.large, seed=config.seed)
    found: dict[str, Any] = {"initial_loss": start}
    for name, end in (("switched", second), ("control", _parameters(other))):
        line = interpolate(objective, first, end, points=POINTS, span=SPAN)
        found[name] = {"alpha": line.alpha.tolist(), "loss": line.loss.tolist(), "barrier": line.barrier}
        found[name]["accuracy"] = [] if line.accuracy is None else line.accuracy.tolist()
    return found


def _segments(pair: Any, config: BatchConfig) -> dict[str, Any]:
    """The loss between two networks while they train: one start with all and with few samples; and two starts."""
    steps = [config.steps * i // config.looks for i in range(config.looks + 1)]
    objective = Objective(_network(pair, config, 0), nn.CrossEntropyLoss(), [pair])

    def path(seed: int, batch: int | None) -> dict[int, dict[str, Tensor]]:
        """Parameters by step, from the start of this seed."""
        model, seen = _network(pair, config, seed), {}
        keep = set(steps)
        look = lambda i: seen.update({i: _parameters(model)}) if i in keep else None  # noqa: E731
        descend(model, pair, rate=config.rate, steps=config.steps, batch=batch, seed=config.seed, before=look)
        return seen

    whole, found = path(0, None), {}
    for name, other in (("same start", path(0, config.small)), ("two starts", path(1, None))):
        rows = []
        for step in steps:
            line = interpolate(objective, whole[step], other[step], points=11)
            apart = sum(float((whole[step][key] - other[step][key]).square().sum()) for key in other[step]) ** 0.5
            rows.append({"step": step, "apart": apart, "lowest": float(line.loss.min()), "highest": float(line.loss.max())})
            rows[-1] |= {"barrier": line.barrier, "ends": [float(line.loss[0]), float(line.loss[-1])]}
        found[name] = rows
    return found


def _parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def _claims(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    small, large = numbers["ends"]["small"], numbers["ends"]["large"]
    ratio = large["top"][0] / small["top"][0]
    counts = f"elbow {large['outliers']['elbow']} and {small['outliers']['elbow']}"
    near = abs(large["outliers"]["elbow"] - small["outliers"]["elbow"]) <= 1
    lines = numbers["lines"]
    barrier, control = lines["switched"]["barrier"], lines["control"]["barrier"]
    share = barrier / lines["initial_loss"]
    return [
        claim("batch size", "top eigenvalue, large over small batch at equal updates, >= 1.5", f"{ratio:.2f}", ratio >= 1.5),
        claim("batch size", "numbers of outliers within 1", counts, near),
        claim(
            "barriers",
            "barrier between large batch and what follows from it <= 5 % of the initial loss",
            f"{share:.2%}",
            share <= 0.05,
        ),
        claim(
            "barriers",
            "control, two initialisations: at least 5 times that barrier",
            f"{control:.3g} and {barrier:.3g}",
            control >= 5 * barrier and control > 0,
        ),
        *_segment_claims(numbers),
    ]


def _segment_claims(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    same, two = (numbers["segments"][name] for name in ("same start", "two starts"))
    initial = numbers["lines"]["initial_loss"]
    rise, control = (max(row["barrier"] for row in rows) / initial for rows in (same, two))
    apart = [same[i]["apart"] for i in (1, -1)]
    between = [row["highest"] for row in two]
    return [
        claim(
            "two runs",
            "one start, all samples and small batches: no barrier (<= 5 % of the initial loss) at any look, while they part",
            f"at most {rise:.2%}; distance {apart[0]:.2g} to {apart[1]:.2g}",
            rise <= 0.05 and apart[1] > apart[0],
        ),
        claim(
            "two runs",
            "two starts: less flat (barrier at least 5 times that)",
            f"barrier up to {control:.1%}",
            control >= 5 * rise and control > 0,
        ),
        claim(
            "two runs",
            "two starts: the highest loss between them falls as both train",
            f"{between[0]:.3g} at first, {min(between):.3g} at the lowest, {between[-1]:.3g} at the end",
            between[-1] < between[0] and between[-1] <= 1.05 * min(between),
        ),
    ]


def document(numbers: dict[str, Any]) -> Document:
    """The page."""
    config = numbers["config"]
    return Document(
        title="Small and large batches",
        summary=f"A fully connected ReLU network on 500 images of 16 x 16 MNIST, batches of {config['small']} and "
        f"{config['large']}, the same learning rate and number of updates. The paper has convolutions, and CIFAR-10 for the "
        "lines: this is a smaller network under the same claims.",
        sections=[
            Section("Claims", "Pass marks are ours.", table=claims_table(numbers["claims"])),
            Section(
                "Curvature at the end",
                "The largest and the most negative eigenvalues after training with either batch size.",
                _edges(numbers),
                alternative="Eigenvalues at both ends for both batch sizes",
                shows="figures 4 and 6 of 2017",
            ),
            Section(
                "On the line",
                "Loss on w(a) = (1 - a) w + a w': after large batches (a = 0) and after going on with small ones (a = 1); "
                "control: two networks from different initialisations.",
                _drawn(numbers),
                alternative="Loss on two lines",
                shows="figure 8 of 2017",
            ),
            Section(
                "Between two that train side by side",
                "Highest loss on the segment (solid) and the higher of the losses at its two ends (dashed), along training.",
                _between(numbers),
                alternative="Highest loss on segments between two networks, against updates",
                shows="figure 8 of 2016",
            ),
        ],
    )


def _edges(numbers: dict[str, Any]) -> Figure:
    with figure(2) as (sheet, places):
        for axes, end in zip(places, ("top", "bottom"), strict=True):
            for (name, cell), colour in zip(numbers["ends"].items(), CYCLE, strict=False):
                ranks = range(1, len(cell[end]) + 1)
                axes.plot(ranks, cell[end], color=colour, marker=".", markersize=3, linewidth=0.8, label=f"{name} batch")
            axes.set(title=end, xlabel="rank")
        places[0].set_ylabel("eigenvalue")
        places[0].legend(loc="best")
    return sheet


def _drawn(numbers: dict[str, Any]) -> Figure:
    with figure(width=5.5) as (sheet, (axes,)):
        for name, colour in zip(("switched", "control"), CYCLE, strict=False):
            line = numbers["lines"][name]
            axes.plot(line["alpha"], line["loss"], color=colour, label=name)
        axes.set(xlabel="a", ylabel="loss", yscale="log")
        axes.legend(loc="best")
    return sheet


def _between(numbers: dict[str, Any]) -> Figure:
    with figure(width=5.5) as (sheet, (axes,)):
        for (name, rows), colour in zip(numbers["segments"].items(), CYCLE, strict=False):
            steps = [row["step"] for row in rows]
            axes.plot(steps, [row["highest"] for row in rows], color=colour, label=name)
            axes.plot(steps, [max(row["ends"]) for row in rows], color=colour, linestyle="--")
        axes.set(xlabel="updates", ylabel="loss", yscale="log")
        axes.legend(loc="best")
    return sheet


STUDY = Study(
    "sagun-batch",
    "Small and large batches: curvature at the end, and the line between their solutions",
    "Sagun et al. 2017: figures 4, 6, 8; Sagun, Bottou, LeCun 2016: figure 8",
    PRESETS,
    {"quick": "1 minute", "paper": "5 minutes"},
    measure,
    document,
)
