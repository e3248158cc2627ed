"""Small and large batches: curvature at the end, and paths between their solutions (Sagun et al.)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from curvscope.errors import InvalidArgument
from curvscope.estimators import RULES, density
from curvscope.operators import Objective
from curvscope.studies.engine import Stages, Study
from curvscope.studies.sagun._paths import bezier, flatness, line, parameters_of
from curvscope.studies.sagun._sagun_batch_page import claims, document
from curvscope.studies.sagun._small import Pair, colour_images, convolutional, descend, digits, hessian_of, mlp
from curvscope.training import interpolate

LOOKS_AT_TRAINING = 20


@dataclass(frozen=True)
class BatchConfig:
    """Network, batches and where to look.

    ``bend_steps``: of training the middle of a curve between two solutions. ``images``: "mnist16", "mnist28" (both
    dense networks) or "cifar10" (two convolutions); the last two need ``--data``.
    """

    images: str = "mnist16"
    hidden: int = 30
    small: int = 10
    large: int = 256
    rate: float = 0.1
    steps: int = 1000
    num_probes: int = 3
    num_steps: int = 50
    looks: int = 5
    bend_steps: int = 600
    seeds: int = 5
    seed: int = 0


PRESETS = {
    "quick": BatchConfig(),
    "paper": BatchConfig(images="mnist28", small=10, large=512, steps=25_000, num_steps=150, looks=8),
    "paper-cifar10": BatchConfig(images="cifar10", small=32, large=1000, rate=0.05, steps=2500, num_probes=2, looks=4),
}


def measure(stages: Stages, config: BatchConfig, data: Path | None) -> dict[str, Any]:
    """A stage for each network and part."""
    pairs = samples(config, data)
    networks = range(config.seeds)
    ends = {
        name: [stages.numbers(f"{name}-{seed}", partial(_end, pairs, batch, seed, config)) for seed in networks]
        for name, batch in (("small", config.small), ("large", config.large))
    }
    lines = [stages.numbers(f"lines-{seed}", partial(_lines, pairs, seed, config)) for seed in networks]
    segments = [stages.numbers(f"segments-{seed}", partial(_segments, pairs, seed, config)) for seed in networks]
    numbers = {"config": asdict(config), "ends": ends, "lines": lines, "segments": segments}
    return numbers | {"claims": claims(numbers)}


def samples(config: BatchConfig, data: Path | None) -> tuple[Pair, Pair]:
    """Train and test samples.

    Raises:
        InvalidArgument: unknown images.
    """
    if config.images in ("mnist16", "mnist28"):
        side = int(config.images.removeprefix("mnist"))
        return digits(data, side=side), digits(data, side=side, split="test")
    if config.images == "cifar10":
        return colour_images(data, "train"), colour_images(data, "test")
    raise InvalidArgument(f"images={config.images!r}: choose 'mnist16', 'mnist28' or 'cifar10'")


def _network(pairs: tuple[Pair, Pair], config: BatchConfig, seed: int) -> nn.Module:
    if config.images == "cifar10":
        return convolutional(config.hidden, seed)
    return mlp((pairs[0][0].shape[1], config.hidden, config.hidden, 10), nn.ReLU, seed)


def _end(pairs: tuple[Pair, Pair], batch: int, seed: int, config: BatchConfig) -> dict[str, Any]:
    model = _network(pairs, config, config.seed + 10 * seed)
    descend(model, pairs[0], rate=config.rate, steps=config.steps, batch=batch, seed=config.seed + seed)
    options: dict[str, Any] = {"num_probes": config.num_probes, "num_steps": config.num_steps, "seed": config.seed}
    found = density(hessian_of(model, pairs[0]), method="lanczos", progress=False, **options)
    return {
        "top": found.extremes()[:40].tolist(),
        "bottom": found.extremes(largest=False)[:40].tolist(),
        "outliers": {rule: found.outliers(rule) for rule in RULES},
    }


def _lines(pairs: tuple[Pair, Pair], seed: int, config: BatchConfig) -> dict[str, Any]:
    """Large batches, then on with small ones from there; and two networks from different initialisations."""
    start = config.seed + 10 * seed
    model = _network(pairs, config, start)
    objective = Objective(model, nn.CrossEntropyLoss(), [pairs[0]])
    found: dict[str, Any] = {"initial_loss": objective.mean_loss, "training": []}
    every = max(1, config.steps // LOOKS_AT_TRAINING)

    def look(offset: int, step: int) -> None:
        """Note losses and accuracy on train and test samples."""
        if step % every == 0:
            found["training"].append({"step": offset + step, **_tested(model, pairs)})

    how: dict[str, Any] = {"rate": config.rate, "steps": config.steps}
    descend(model, pairs[0], batch=config.large, seed=start, before=partial(look, 0), **how)
    first = parameters_of(model)
    descend(model, pairs[0], batch=config.small, seed=start + 1, before=partial(look, config.steps), **how)
    second, other = parameters_of(model), _network(pairs, config, start + 1)
    descend(other, pairs[0], batch=config.large, seed=start, **how)
    far = parameters_of(other)
    found["switched"] = line(model, pairs, first, second)
    found["control"] = line(model, pairs, first, far)
    found["curve"] = bezier(model, pairs, (first, far), steps=config.bend_steps, seed=start)
    halfway = {name: (first[name] + second[name]) / 2 for name in first}
    places = {"large batch": first, "halfway": halfway, "small batch": second}
    found["flatness"] = {name: flatness(model, pairs[0], place, start) for name, place in places.items()}
    return found


def _tested(model: nn.Module, pairs: tuple[Pair, Pair]) -> dict[str, float]:
    made = {}
    for name, (x, y) in zip(("train", "test"), pairs, strict=True):
        output = model(x).detach()
        made[f"{name}_loss"] = float(nn.functional.cross_entropy(output, y))
        made[f"{name}_accuracy"] = float((output.argmax(dim=1) == y).double().mean())
    return made


def _segments(pairs: tuple[Pair, Pair], seed: int, config: BatchConfig) -> dict[str, Any]:
    """The loss between two networks while they train: one start with all and with few samples; and two starts."""
    steps, start = [config.steps * i // config.looks for i in range(config.looks + 1)], config.seed + 10 * seed
    objective = Objective(_network(pairs, config, start), nn.CrossEntropyLoss(), [pairs[0]])

    def path(own: int, batch: int | None) -> dict[int, dict[str, Any]]:
        """Parameters by step, from the start of this seed."""
        model, seen = _network(pairs, config, own), {}
        keep = set(steps)

        def look(i: int) -> None:
            """Keep the parameters of a step that was asked for."""
            if i in keep:
                seen[i] = parameters_of(model)

        descend(model, pairs[0], rate=config.rate, steps=config.steps, batch=batch, seed=start, before=look)
        return seen

    whole, found = path(start, None), {}
    for name, other in (("same start", path(start, config.small)), ("two starts", path(start + 1, None))):
        rows = []
        for step in steps:
            between = interpolate(objective, whole[step], other[step], points=11)
            apart = sum(float((whole[step][key] - other[step][key]).square().sum()) for key in other[step]) ** 0.5
            rows.append(
                {"step": step, "apart": apart, "lowest": float(between.loss.min()), "highest": float(between.loss.max())}
            )
            rows[-1] |= {"barrier": between.barrier, "ends": [float(between.loss[0]), float(between.loss[-1])]}
        found[name] = rows
    return found


STUDY = Study(
    "sagun-batch",
    "Small and large batches: curvature at the end, and paths between their solutions",
    "Sagun et al. 2017: figures 4, 6-8; Sagun, Bottou, LeCun 2016: figure 8",
    PRESETS,
    {
        "quick": "a few minutes (not measured)",
        "paper": "an hour (not measured since it has five networks)",
        "paper-cifar10": "hours (not measured)",
    },
    measure,
    document,
)
