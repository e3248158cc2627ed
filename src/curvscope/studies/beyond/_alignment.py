"""Why do large weights lie in the top eigenspace? Scale against learning: reparametrisations, initial scales, null masks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from curvscope.operators import hessian
from curvscope.problems import get
from curvscope.report import CYCLE, GREY, Document, Section, Table, figure
from curvscope.solvers import eigsh
from curvscope.studies.engine import Stages, Study, claim, claims_table, half_width, summary, verdict
from curvscope.studies.sagun import descend
from curvscope.subspaces import Ranking, mask_null, masks, overlap

WIDTHS = (256, 20, 20, 10)
RANKINGS = {"final": "largest weights", "initial": "largest initial weights", "moved": "weights that moved most"}


@dataclass(frozen=True)
class AlignmentConfig:
    """Sizes of the study.

    ``factors``: the first layer is multiplied by each and the last divided by it, which leaves the function of a ReLU
    network as it is. ``scales``: of the initial weights, each trained anew.
    """

    steps: int = 200
    batch: int = 100
    rate: float = 0.2
    k: int = 20
    tol: float = 1e-3
    factors: tuple[float, ...] = (0.25, 4.0)
    scales: tuple[float, ...] = (0.5, 2.0)
    seeds: int = 5
    seed: int = 0


PRESETS = {
    "quick": AlignmentConfig(),
    "paper": AlignmentConfig(
        steps=3000, k=50, factors=(0.1, 0.25, 0.5, 2.0, 4.0, 10.0), scales=(0.25, 0.5, 2.0, 4.0), seeds=10
    ),
}


def measure(stages: Stages, config: AlignmentConfig, data: Path | None) -> dict[str, Any]:
    """A stage for each network."""
    problem = get("mnist16", data=data)
    samples = problem.curvature_batches("train")[0]
    x, y = (torch.cat(part) for part in zip(*problem.evaluation_batches("train"), strict=True))
    found = [
        stages.numbers(f"network-{seed}", partial(_network, (x, y), samples, config.seed + seed, config))
        for seed in range(config.seeds)
    ]
    numbers = {"config": asdict(config), "networks": found}
    return numbers | {"claims": _claims(numbers)}


def relu_network(seed: int, scale: float = 1.0) -> nn.Sequential:
    """256-20-20-10 with ReLU, and PyTorch's initialisation times a scale."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = [nn.Flatten()]
        for wide, narrow in pairwise(WIDTHS):
            layers += [nn.Linear(wide, narrow), nn.ReLU()]
    made = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for p in made.parameters():
            p.mul_(scale)
    return made


def rescale(model: nn.Sequential, factor: float) -> nn.Sequential:
    """Multiply the first layer by a factor and divide the weights of the last by it, in place: the function stays the same.

    Biases between them are multiplied too, as everything before the last layer is scaled.

    >>> model, x = relu_network(0), torch.randn(3, 256)
    >>> before = model(x)
    >>> torch.allclose(rescale(model, 4.0)(x), before, atol=1e-5)
    True
    """
    linear = [module for module in model if isinstance(module, nn.Linear)]
    with torch.no_grad():
        linear[0].weight.mul_(factor)
        for layer in linear[:-1]:
            layer.bias.mul_(factor)
        linear[-1].weight.div_(factor)
    return model


def _network(pair: tuple[Tensor, Tensor], samples: Any, seed: int, config: AlignmentConfig) -> dict[str, Any]:
    how: dict[str, Any] = {"rate": config.rate, "steps": config.steps, "batch": config.batch, "seed": seed}
    initial, model = relu_network(seed), relu_network(seed)
    descend(model, pair, **how)
    first, last = (torch.cat([p.detach().flatten() for p in each.parameters()]) for each in (initial, model))
    found = {
        "initial": _ratios(initial, samples, {"final": first}, config),
        "trained": _ratios(model, samples, {"final": last, "initial": first, "moved": last - first}, config),
    }
    for factor in config.factors:
        other = relu_network(seed)
        other.load_state_dict(model.state_dict())
        rescale(other, factor)
        own = torch.cat([p.detach().flatten() for p in other.parameters()])
        found[f"rescaled {factor:g}"] = _ratios(other, samples, {"final": own}, config)
    for scale in config.scales:
        other = relu_network(seed, scale)
        descend(other, pair, **how)
        own = torch.cat([p.detach().flatten() for p in other.parameters()])
        found[f"initial scale {scale:g}"] = _ratios(other, samples, {"final": own}, config)
    return found


def _ratios(model: nn.Module, samples: Any, scores: dict[str, Tensor], config: AlignmentConfig) -> dict[str, Any]:
    """Overlap of the top-k eigenspace over both chance levels, and in standard deviations of the second, by ranking."""
    H = hessian(model, nn.CrossEntropyLoss(), [samples], strategy="split_vmap:8")
    solution = eigsh(H, config.k, method="krylov", tol=config.tol, seed=config.seed, progress=False)
    made: dict[str, Any] = {"loss": H.objective.mean_loss, "status": solution.status.code}
    for name, values in scores.items():
        ranking: Ranking = masks.by_score(values.abs())
        curve = overlap(solution, ranking)
        null = mask_null(solution, ranking, layers=model)
        at = config.k - 1
        made[name] = {
            "uniform": float(curve.ratio[at]),
            "layered": float(curve.value[at] / null.mean[at]),
            "z": float((curve.value[at] - null.mean[at]) / null.std[at].clamp(min=1e-300)),
        }
    return made


def _values(numbers: dict[str, Any], variant: str, ranking: str, level: str) -> list[float]:
    return [float(own[variant][ranking][level]) for own in numbers["networks"]]


def _claims(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    variants = [name for name in numbers["networks"][0] if name == "trained" or name.startswith("rescaled")]
    changes = {
        level: [
            max(own[name]["final"][level] for name in variants)
            / max(min(own[name]["final"][level] for name in variants), 1e-12)
            for own in numbers["networks"]
        ]
        for level in ("uniform", "layered")
    }
    trained, start = (_values(numbers, variant, "final", "layered") for variant in ("trained", "initial"))
    moved = _values(numbers, "trained", "moved", "layered")
    return [
        claim(
            "chance",
            "trained: overlap is at least twice uniform chance",
            summary(_values(numbers, "trained", "final", "uniform")),
            verdict(_values(numbers, "trained", "final", "uniform"), least=2.0),
        ),
        claim(
            "scale",
            "the same function with rescaled layers: the ratio to uniform chance changes by a factor of 2 or more",
            summary(changes["uniform"]),
            verdict(changes["uniform"], least=2.0),
        ),
        claim(
            "scale",
            "and the ratio to layer-matched chance changes by less than that one",
            summary(changes["layered"]),
            verdict([a - b for a, b in zip(changes["uniform"], changes["layered"], strict=True)], least=0.0),
        ),
        claim("learned", "initial: no more than layer-matched chance (at most 1.1)", summary(start), verdict(start, most=1.1)),
        claim(
            "learned", "trained: more than layer-matched chance (at least 1.1)", summary(trained), verdict(trained, least=1.1)
        ),
        claim(
            "learned",
            "weights that moved most hold more of the eigenspace than the largest, within layers",
            f"{summary(moved)} against {summary(trained)}",
            verdict([a - b for a, b in zip(moved, trained, strict=True)], least=0.0),
        ),
    ]


def document(numbers: dict[str, Any]) -> Document:
    """The page."""
    config = numbers["config"]
    states = [own[name]["status"] == "converged" for own in numbers["networks"] for name in own]
    return Document(
        title="Why do large weights lie where the curvature is?",
        summary=f"ReLU networks {'-'.join(map(str, WIDTHS))} on 16 x 16 MNIST, {config['steps']} steps, "
        f"{config['seeds']} networks; top {config['k']} eigenpairs of the Hessian; {sum(states)} of {len(states)} "
        f"solves converged to {config['tol']:g}.",
        sections=[
            Section(
                "Verdict",
                "Pass marks are ours. Means over networks with standard errors; a verdict needs the whole 95 % interval on one "
                "side of the mark.",
                table=claims_table(numbers["claims"]),
            ),
            Section(
                "Scale and learning",
                "Overlap of the k largest weights with the top-k eigenspace over two chance levels: all masks, "
                "and masks with as "
                "many weights in each layer. Rescaled: the same function, the first layer multiplied and the "
                "last divided. Bars: "
                "95 % intervals over networks.",
                _figure(numbers),
                alternative="Ratios to two chance levels for each variant of the network",
            ),
            Section(
                "The numbers",
                "z: standard deviations of random masks with the same layers (permutations within each layer).",
                table=_table(numbers),
            ),
        ],
        provenance={
            "preset": numbers["preset"],
            "question": "Fernandez et al., TMLR 2025: why large weights align is left open",
        },
    )


def _rows(numbers: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(variant, ranking, label)."""
    rows = []
    for variant, own in numbers["networks"][0].items():
        for ranking in RANKINGS:
            if ranking in own:
                rows.append((variant, ranking, variant if ranking == "final" else f"{variant}, {RANKINGS[ranking]}"))
    return rows


def _figure(numbers: dict[str, Any]) -> Any:
    rows = _rows(numbers)
    with figure(width=7.0, height=0.35 * len(rows) + 1.2) as (sheet, (axes,)):
        for place, (level, colour) in enumerate(zip(("uniform", "layered"), CYCLE, strict=False)):
            values = [_values(numbers, variant, ranking, level) for variant, ranking, _ in rows]
            errors = [min(half_width(each), 1e3) for each in values]
            where = [i + 0.2 * (place - 0.5) for i in range(len(rows))]
            label = "over uniform chance" if level == "uniform" else "over layer-matched chance"
            axes.errorbar([fmean(v) for v in values], where, xerr=errors, fmt="o", color=colour, capsize=2, label=label)
        axes.axvline(1, color=GREY, linestyle="--", linewidth=1.0)
        axes.set_yticks(range(len(rows)), [label for _, _, label in rows])
        axes.invert_yaxis()
        axes.set(xlabel="overlap / chance", xscale="log")
        sheet.legend(loc="outside lower center", ncols=2)
    return sheet


def _table(numbers: dict[str, Any]) -> Table:
    rows = []
    for variant, ranking, label in _rows(numbers):
        cells = [summary(_values(numbers, variant, ranking, level)) for level in ("uniform", "layered", "z")]
        rows.append([label, *cells, summary([own[variant]["loss"] for own in numbers["networks"]])])
    return Table(["network", "over uniform\nchance", "over layer-\nmatched chance", "z", "loss"], rows)


STUDY = Study(
    "alignment",
    "Why large weights lie in the top eigenspace: scale against learning",
    "what the paper left open",
    PRESETS,
    {"quick": "a few minutes (not measured)", "paper": "an hour (not measured)"},
    measure,
    document,
)
