"""Can something cheaper stand in for the overlap? Sub-traces and sharpness along single parameters (figures 5, 6, 7)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from curvscope.operators import ggn, hessian
from curvscope.problems import Problem, as_split
from curvscope.report import CYCLE, Document, Line, Panel, Section, Table, panels
from curvscope.studies.engine import Stages, Study
from curvscope.studies.sketched_overlap import _mnist16 as mnist16
from curvscope.studies.sketched_overlap._along_training import training_section
from curvscope.studies.sketched_overlap._readings import facts, loss_and_accuracy
from curvscope.subspaces import masks, overlap, proxies


@dataclass(frozen=True)
class ProxyConfig:
    """Steps, lambdas, and how much the estimators spend. The paper's proxies are of seed 23456."""

    steps: tuple[int, ...] = (0, 100)
    lambdas: tuple[float, ...] = (0.3,)
    split: str = "train"
    k: int = 100
    num_probes: int = 100
    num_samples: int = 500
    seed: int = 23456


PRESETS = {
    "quick": ProxyConfig(),
    "paper": ProxyConfig(steps=tuple(range(0, 1001, 100)), lambdas=(1.0, 0.3, 0.1), k=360, num_probes=300, num_samples=1000),
}
SHOWN_K = (10, 50, 100, 350, 1000, 3500)


def measure(stages: Stages, config: ProxyConfig, data: Path | None) -> dict[str, Any]:
    """Train; at each step the exact proxies, their estimates, and the overlap that they stand in for."""
    problem = mnist16.problem(data)
    recorder, losses = mnist16.trained(stages, problem, config.steps, config.seed)
    found, tested = {}, {}
    for step in config.steps:
        model = mnist16.model_at(problem, recorder, step)
        tested[str(step)] = stages.numbers(f"accuracy-{step:06d}", partial(loss_and_accuracy, problem, model))
        found[str(step)] = stages.numbers(f"step-{step:06d}", partial(_checkpoint, problem, model, config, stages))
    return {"config": asdict(config), "full_data": data is not None, "losses": losses, "tested": tested, "checkpoints": found}


def _checkpoint(problem: Problem, model: nn.Module, config: ProxyConfig, stages: Stages) -> dict[str, Any]:
    data = problem.curvature_batches(as_split(config.split))
    H, G = (make(model, problem.criterion, data, dtype=torch.float64) for make in (hessian, ggn))
    H32, G32 = (make(model, problem.criterion, data) for make in (hessian, ggn))
    ranking = masks.by_magnitude(model)
    options: dict[str, Any] = {"progress": stages.progress}
    own, squared = proxies.diagonals(H, **options)
    curves = {
        "ggn": proxies.sub_trace(G, ranking, **options),
        "h2": proxies.share(squared, ranking, "sub-trace of the square"),
        "gradient": proxies.share(H.gradient().square(), ranking, "gradient"),
        "ggn_estimate": proxies.sub_trace(G32, ranking, num_probes=config.num_probes, **options),
        "h2_estimate": proxies.sub_trace(H32, ranking, power=2, num_probes=config.num_probes, **options),
    }
    for scale in config.lambdas:
        curves[f"sam_{scale:g}"] = proxies.sam(H32, ranking, scale, diagonal=own, **options)
        curves[f"sam_taylor_{scale:g}"] = proxies.sam(H32, ranking, scale, method="taylor", diagonal=own, **options)
        # what the paper's code computed: the step is the gradient itself, not its direction; so small that the
        # second-order expansion is exact to its size
        curves[f"sam_raw_{scale:g}"] = proxies.sam(
            H32, ranking, scale, method="taylor", normalize=False, diagonal=own, **options
        )
    curves["sam_estimate"] = proxies.sam(
        H32, ranking, config.lambdas[0], method="sampled", num_samples=config.num_samples, seed=config.seed, **options
    )
    solution = mnist16.top_pairs(problem, model, config.split, config.k, progress=stages.progress)
    exact = overlap(solution, ranking)
    return {
        **facts(solution, config.k),
        "overlap": {name: getattr(exact, name)[: config.k].tolist() for name in ("value", "lower", "upper")},
        "traces": {"hessian": float(own.sum()), "h2": float(squared.sum())},
        "gradient_norm": float(H.gradient().norm()),
        "curves": {name: curve.value.tolist() for name, curve in curves.items()},
        "stderr": {name: curve.stderr.tolist() for name, curve in curves.items() if isinstance(curve.stderr, Tensor)},
        "size": ranking.size,
    }


def document(numbers: dict[str, Any]) -> Document:
    """The page."""
    config, found = numbers["config"], numbers["checkpoints"]
    last = found[str(config["steps"][-1])]
    k = min(config["k"], 350)
    scale = f"{config['lambdas'][0]:g}"
    sections = [
        Section(
            "Proxies and the overlap they stand in for",
            "Share of the total on the k largest weights: of the trace of the generalised Gauss-Newton matrix, of the "
            "trace of the squared Hessian, and of the sharpness-aware loss changes; beside the exact overlap of the mask "
            "with the top-k eigenspace. Dashed: chance, k/D. A proxy follows the overlap where its line has the "
            "overlap's height over chance.",
            figure_proxies(numbers, scale),
            alternative="Panels by step: three proxies and the overlap against k, with chance",
            shows="figures 6 and 7",
        ),
        training_section(numbers["losses"], {int(step): own for step, own in numbers["tested"].items()}, "figure 5"),
        Section(
            "GGN and squared Hessian along training",
            "The sub-traces at every step of this run, over chance.",
            figure_steps(numbers, (("ggn", "GGN"), ("h2", "squared Hessian"))),
            alternative="Ratio to chance of the two sub-traces against k, a line a step",
        ),
        Section(
            "Sharpness-aware changes, as defined and as logged",
            "Solid: steps of lambda times the unit gradient, as the paper defines them. Dashed: times the gradient "
            "itself, as its code did. Both in float64: in float32 most of these changes are below the spacing of the "
            "loss, and the paper's step-0 curves are largely rounding. As lambda falls all tend to the gradient's own "
            "share, by which they are divided here.",
            figure_sam(numbers),
            alternative="Share of the sharpness-aware changes against k for several lambda, by step",
        ),
        Section(
            "What estimates cost",
            f"Sub-traces from {config['num_probes']} products with random vectors (exactly they take {last['size']:,}), "
            f"the sharpness-aware share from {config['num_samples']} evaluations of the loss; shaded: two standard "
            "errors; dashed: exact.",
            figure_estimates(numbers, scale),
            alternative="Estimated proxies with error bands beside the exact ones, at the last step",
        ),
        Section(
            "The numbers",
            "Shares on the k largest weights. The paper gives these proxies as figures only, so there is no column of "
            "its values here; its logs are compared in the tests that have them.",
            table=_table(numbers),
        ),
    ]
    return Document(
        title="Can something cheaper stand in for the overlap?",
        summary=(
            f"mnist16 (D = {last['size']:,}), seed {config['seed']}, at steps {', '.join(map(str, config['steps']))}: "
            "proxies of the paper's appendix A.2, exactly and estimated."
        ),
        highlights=(
            (f"GGN share over chance, k = {k}, last step", f"{last['curves']['ggn'][k - 1] * last['size'] / k:.2f}×"),
            ("squared-Hessian share, likewise", f"{last['curves']['h2'][k - 1] * last['size'] / k:.2f}×"),
            ("sharpness-aware share, likewise", f"{last['curves'][f'sam_{scale}'][k - 1] * last['size'] / k:.2f}×"),
            ("overlap, likewise", f"{last['overlap']['value'][k - 1] * last['size'] / k:.2f}×"),
        ),
        sections=sections,
        provenance={
            "source": "Fernandez et al., TMLR 2025 (arXiv 2504.14701), appendix A.2, figures 5 to 7",
            "preset": numbers["preset"],
            "data": "all of MNIST" if numbers["full_data"] else "the packaged part of MNIST",
            "seed": f"{config['seed']}; the overlap is of the same run (the paper shows seed 12345 beside its proxies)",
        },
    )


def _table(numbers: dict[str, Any]) -> Table:
    config, rows = numbers["config"], []
    for step, own in numbers["checkpoints"].items():
        for k in SHOWN_K:
            curves = own["curves"]
            names = ["ggn", "h2", *(f"sam_{scale:g}" for scale in config["lambdas"])]
            shown = [f"{curves[name][k - 1]:.6g}" for name in names]
            exact = f"{own['overlap']['value'][k - 1]:.6g}" if k <= len(own["overlap"]["value"]) else ""
            rows.append([step, str(k), *shown, exact, f"{k / own['size']:.4g}"])
    heads = ["step", "k", "GGN", "H²", *(f"SAM\nλ = {scale:g}" for scale in config["lambdas"]), "overlap", "chance"]
    return Table(heads, rows)


def _shown(numbers: dict[str, Any], most: int = 3) -> list[tuple[str, dict[str, Any]]]:
    steps = list(numbers["config"]["steps"])
    if len(steps) > most:
        steps = [steps[0], steps[1], steps[-1]]
    return [(f"step {step}", numbers["checkpoints"][str(step)]) for step in steps]


def _thin(values: list[float]) -> tuple[list[int], list[float]]:
    """A curve over all k, at about 300 places that are even on a logarithmic axis."""
    places = sorted({round(len(values) ** (i / 299)) for i in range(300)})
    return places, [values[k - 1] for k in places]


def _curve(values: list[float], **options: Any) -> Line:
    return Line(*_thin(values), **options)


def figure_proxies(numbers: dict[str, Any], scale: str) -> Any:
    """Three proxies and the overlap, a panel a step."""
    content = []
    for title, own in _shown(numbers):
        lines = {
            "GGN sub-trace": _curve(own["curves"]["ggn"]),
            "H² sub-trace": _curve(own["curves"]["h2"]),
            f"SAM, λ = {scale}": _curve(own["curves"][f"sam_{scale}"]),
            "overlap": Line(range(1, len(own["overlap"]["value"]) + 1), own["overlap"]["value"]),
        }
        content.append(Panel(title, lines, ([1, own["size"]], [1 / own["size"], 1]), floor=3e-5))
    return panels(content, x="k", y="share on the k largest weights", height=2.5)


def figure_steps(numbers: dict[str, Any], proxies_shown: tuple[tuple[str, str], ...]) -> Any:
    """Ratio to chance, a panel a proxy, a line a step."""
    content, steps = [], list(numbers["config"]["steps"])
    if len(steps) > 6:
        steps = [steps[round(i * (len(steps) - 1) / 5)] for i in range(6)]
    for name, title in proxies_shown:
        lines = {}
        for step, colour in zip(steps, CYCLE, strict=False):
            own = numbers["checkpoints"][str(step)]
            places, values = _thin(own["curves"][name])
            lines[f"step {step}"] = Line(
                places, [v * own["size"] / k for k, v in zip(places, values, strict=True)], colour=colour
            )
        content.append(Panel(title, lines, ([1, own["size"]], [1, 1]), floor=0.02))
    return panels(content, x="k", y="share / chance", height=2.4)


def figure_sam(numbers: dict[str, Any]) -> Any:
    """Sharpness-aware shares for several lambda, as defined and as logged."""
    content = []
    for title, own in _shown(numbers):
        lines = {}
        for scale, colour in zip(numbers["config"]["lambdas"], CYCLE, strict=False):
            for kind, label, dashed in (("sam", "unit", 0), ("sam_raw", "raw", 1)):
                places, values = _thin(own["curves"][f"{kind}_{scale:g}"])
                limit = [own["curves"]["gradient"][k - 1] for k in places]
                relative = [value / share if share else 1.0 for value, share in zip(values, limit, strict=True)]
                lines[f"λ = {scale:g}, {label} gradient"] = Line(places, relative, colour=colour, dashed=dashed)
        content.append(Panel(title, lines, ([1, own["size"]], [1, 1])))
    return panels(
        content,
        x="k",
        y="share / the gradient's own share",
        yscale="linear",
        height=2.5,
        legend_columns=3,
        chance_label="limit of small λ",
    )


def figure_estimates(numbers: dict[str, Any], scale: str) -> Any:
    """Estimates with two standard errors, and the exact curves."""
    title, own = _shown(numbers)[-1]
    content = []
    for name, exact, label in (
        ("ggn_estimate", "ggn", "GGN"),
        ("h2_estimate", "h2", "squared Hessian"),
        ("sam_estimate", f"sam_{scale}", f"SAM, λ = {scale}"),
    ):
        value, error = own["curves"][name], own["stderr"][name]
        places, middle = _thin(value)
        low = [max(1e-6, value[k - 1] - 2 * error[k - 1]) for k in places]
        high = [max(1e-6, value[k - 1] + 2 * error[k - 1]) for k in places]
        lines = {
            "estimate (± 2 s.e.)": Line(places, [max(v, 1e-6) for v in middle], low, high),
            "exact": _curve(own["curves"][exact], colour="#D55E00", dashed=1),
        }
        content.append(Panel(f"{label}, {title}", lines, ([1, own["size"]], [1 / own["size"], 1]), floor=3e-5))
    return panels(content, x="k", y="share on the k largest weights", height=2.4)


STUDY = Study(
    "mnist16-proxies",
    "Sub-traces and sharpness as stand-ins for the overlap",
    "figures 5, 6 and 7",
    PRESETS,
    {"quick": "1 minute", "paper": "7 minutes"},
    measure,
    document,
)
