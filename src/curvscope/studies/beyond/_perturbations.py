"""Random perturbations of masked parameters, and what second order predicts of them (appendix A.1, equation 6)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from curvscope.operators import CurvatureOperator, hessian
from curvscope.problems import Pair, Problem, get
from curvscope.report import CYCLE, Document, Line, Panel, Section, Table, panels
from curvscope.solvers import eigsh
from curvscope.studies.engine import Stages, Study, claim, claims_table, summary, verdict
from curvscope.subspaces import masks
from curvscope.training import Recorder, train

RANKINGS = ("magnitude", "best", "random")


@dataclass(frozen=True)
class PerturbationConfig:
    """Steps, sizes of masks and of perturbations; ``lengths``: norm of a perturbation over that of the parameters."""

    steps: tuple[int, ...] = (0, 200)
    sizes: tuple[int, ...] = (50, 350, 2000)
    lengths: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    draws: int = 32
    k: int = 50
    seeds: int = 5
    seed: int = 0


PRESETS = {
    "quick": PerturbationConfig(),
    "paper": PerturbationConfig(steps=(0, 100, 1000), draws=200, k=350, seeds=10),
}


def measure(stages: Stages, config: PerturbationConfig, data: Path | None) -> dict[str, Any]:
    """A stage for each network and step."""
    problem, found = get("mnist16", data=data), {}
    for step in config.steps:
        found[str(step)] = [
            stages.numbers(f"step-{step:06d}-{seed}", partial(_network, problem, step, config.seed + seed, config, stages))
            for seed in range(config.seeds)
        ]
    numbers = {"config": asdict(config), "steps": found}
    return numbers | {"claims": _claims(numbers)}


def _network(problem: Problem, step: int, seed: int, config: PerturbationConfig, stages: Stages) -> dict[str, Any]:
    model = problem.model(seed)
    if step:
        recorder = Recorder(model, [step])
        train(problem, model, recorder, seed=seed, progress=stages.progress)
    samples = problem.curvature_batches("train")[0]
    H = hessian(model.double(), problem.criterion, [samples], dtype=torch.float64)
    solution = eigsh(H, config.k, method="krylov", tol=1e-3, progress=False)
    rankings = {
        "magnitude": masks.by_magnitude(model),
        "best": masks.best(solution),
        "random": masks.random(H.shape[0], seed=seed),
    }
    norm = float(H.values().norm())
    found: dict[str, Any] = {}
    for name, ranking in rankings.items():
        for size in config.sizes:
            generator = torch.Generator().manual_seed(seed + size)
            directions = unit_directions(H.shape[0], ranking.order[:size], config.draws, generator)
            found[f"{name} {size}"] = rises(H, model, samples, norm * directions, config.lengths)
    return {"masks": found, "loss": H.objective.mean_loss, "status": solution.status.code}


def unit_directions(size: int, places: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return random unit vectors, (D, count) float64, that are zero outside of the places.

    >>> unit_directions(5, torch.tensor([1, 3]), 2, torch.Generator().manual_seed(0)).norm(dim=0).tolist()
    [1.0, 1.0]
    """
    made = torch.zeros(size, count, dtype=torch.float64, device="cpu")
    made[places] = torch.randn(len(places), count, generator=generator, dtype=torch.float64, device="cpu")
    norms: Tensor = made.norm(dim=0)
    return made / norms


def rises(
    H: CurvatureOperator, model: nn.Module, samples: Pair, directions: Tensor, lengths: tuple[float, ...]
) -> list[dict[str, float]]:
    """Return for each length: mean change of the loss, its standard error, and what first and second order predict of it.

    The change at theta + t d is t g'd + t^2/2 d'Hd + O(t^3); its mean over random signs of d is the second term. Signs are
    averaged by taking both, so that the first order and all odd ones cancel.
    """
    place, base = H.values(), H.objective.mean_loss
    bends = (directions * (H @ directions)).sum(dim=0)
    slopes = H.gradient() @ directions
    found = []
    for length in lengths:
        changes = torch.stack(
            [
                torch.stack([loss_at(H, model, samples, place + sign * length * d) for d in directions.mT]) - base
                for sign in (1.0, -1.0)
            ]
        )
        both = changes.mean(dim=0)
        predicted = 0.5 * length**2 * bends
        found.append(
            {
                "length": length,
                "rise": float(both.mean()),
                "stderr": float(both.std() / len(both) ** 0.5),
                "predicted": float(predicted.mean()),
                "size": float(changes.abs().mean()),
                "first_order": float((length * slopes).abs().mean()),
                "error": float((both - predicted).abs().mean() / predicted.abs().mean()),
            }
        )
    return found


@torch.no_grad()
def loss_at(H: CurvatureOperator, model: nn.Module, samples: Pair, vector: Tensor) -> Tensor:
    """Return the mean cross-entropy on the samples at other parameters."""
    x, y = samples
    return nn.functional.cross_entropy(functional_call(model, H.parameters.unflatten(vector), (x.double(),)), y)


def _values(numbers: dict[str, Any], step: int, mask: str, length: int, key: str) -> list[float]:
    return [float(own["masks"][mask][length][key]) for own in numbers["steps"][str(step)]]


def _claims(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    config, rows = numbers["config"], []
    last, size = config["steps"][-1], config["sizes"][len(config["sizes"]) // 2]
    for place in (0, len(config["lengths"]) - 1):
        length = config["lengths"][place]
        errors = _values(numbers, last, f"magnitude {size}", place, "error")
        text = f"second order predicts the change within 10 %: length {length:g} of the parameters, the {size} largest"
        rows.append(claim("prediction", text, summary(errors), verdict(errors, most=0.1)))
    for first, second in (("magnitude", "random"), ("best", "magnitude")):
        pairs = [_values(numbers, last, f"{name} {size}", 0, "rise") for name in (first, second)]
        text = f"the loss rises more along the {size} places of the {first} mask than along those of the {second} mask"
        more = [a - b for a, b in zip(*pairs, strict=True)]
        rows.append(claim("masks", text, f"{summary(pairs[0])} against {summary(pairs[1])}", verdict(more, least=0.0)))
    return rows


def document(numbers: dict[str, Any]) -> Document:
    """The page."""
    config = numbers["config"]
    return Document(
        title="Random steps along masked parameters",
        summary=f"mnist16 at steps {', '.join(map(str, config['steps']))}, {config['seeds']} networks: the loss "
        "after random steps "
        f"of {config['draws']} directions that are zero outside of a mask, both signs, beside what the Hessian predicts.",
        sections=[
            Section(
                "Claims", "Pass marks are ours; a verdict needs the whole 95 % interval.", table=claims_table(numbers["claims"])
            ),
            Section(
                "Measured and predicted",
                "Mean rise of the loss (solid, with the range over networks) and half the mean of t^2 d'Hd "
                "(dashed), against the "
                f"length of the step, at step {config['steps'][-1]}.",
                _figure(numbers),
                alternative="Rise of the loss against the length of random steps, a panel a mask size",
                shows="equation 6",
            ),
            Section("The numbers", "Means over networks with standard errors.", table=_table(numbers)),
        ],
        provenance={
            "source": "Fernandez et al., TMLR 2025 (arXiv 2504.14701), appendix A.1, the random version of equation 6",
            "preset": numbers["preset"],
        },
    )


def _figure(numbers: dict[str, Any]) -> Any:
    config, content = numbers["config"], []
    lengths, last = list(config["lengths"]), config["steps"][-1]
    for size in config["sizes"]:
        lines = {}
        for name, colour in zip(RANKINGS, CYCLE, strict=False):
            rows = [_values(numbers, last, f"{name} {size}", i, "rise") for i in range(len(lengths))]
            predicted = [_values(numbers, last, f"{name} {size}", i, "predicted") for i in range(len(lengths))]
            middle, low, high = ([max(f(row), 1e-9) for row in rows] for f in (_mean, min, max))
            lines[name] = Line(lengths, middle, low, high, colour=colour)
            lines[f"{name}, second order"] = Line(
                lengths, [max(_mean(row), 1e-9) for row in predicted], dashed=1, colour=colour
            )
        content.append(Panel(f"{size} parameters", lines))
    return panels(
        content, x="length of the step / norm of the parameters", y="mean rise of the loss", height=2.6, legend_columns=3
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _table(numbers: dict[str, Any]) -> Table:
    rows, config = [], numbers["config"]
    for step in config["steps"]:
        for size in config["sizes"]:
            for name in RANKINGS:
                for place, length in enumerate(config["lengths"]):
                    keys = ("rise", "predicted", "error", "size", "first_order")
                    cells = [summary(_values(numbers, step, f"{name} {size}", place, key)) for key in keys]
                    rows.append([str(step), name, str(size), f"{length:g}", *cells])
    heads = ["step", "mask", "parameters", "length", "mean rise", "second order", "relative\nerror", "mean size", "first order"]
    return Table(heads, rows)


STUDY = Study(
    "masked-perturbations",
    "Random steps along masked parameters, and what second order predicts",
    "equation 6",
    PRESETS,
    {"quick": "a few minutes (not measured)", "paper": "half an hour (not measured)"},
    measure,
    document,
)
