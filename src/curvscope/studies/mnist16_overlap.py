"""Do the largest weights lie where the curvature is? Every k, exactly, along training (figures 1 left and 14)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from curvscope.operators import hessian
from curvscope.problems import Problem
from curvscope.report import Document, Section
from curvscope.report.plots import Line, Panel, panels
from curvscope.report.style import CYCLE, GREY
from curvscope.solvers import Solution, seigh
from curvscope.studies import mnist16
from curvscope.studies.study import Stages, Study, published
from curvscope.studies.tables import Row, comparison, row, within
from curvscope.subspaces import (
    best_overlap,
    gradient_fraction,
    mask_null,
    masks,
    overlap,
    participation_ratio,
    space_layer_shares,
)

COMPARED = (1, 10, 50, 100, 350)


@dataclass(frozen=True)
class OverlapConfig:
    """Steps, splits and pairs; sketch sizes as published, 0 for none."""

    steps: tuple[int, ...] = (0, 50, 200)
    splits: tuple[str, ...] = ("train",)
    k: int = 150
    num_outer: int = 155
    num_inner: int = 310
    random_masks: int = 10
    seed: int = 12345


PRESETS = {
    "quick": OverlapConfig(),
    "paper": OverlapConfig(steps=tuple(range(0, 1001, 100)), splits=("train", "test"), k=360, num_outer=355, num_inner=710),
}


def measure(stages: Stages, config: OverlapConfig, data: Path | None) -> dict[str, Any]:
    """Train, then eigenpairs and all that is read off them, a stage for each step and split."""
    problem = mnist16.problem(data)
    recorder, losses = mnist16.trained(stages, problem, config.steps, config.seed)
    found = {}
    for step in config.steps:
        model = mnist16.model_at(problem, recorder, step)
        for split in config.splits:
            found[f"{step} {split}"] = stages.numbers(
                f"step-{step:06d}-{split}", lambda model=model, split=split: _checkpoint(problem, model, split, config, stages)
            )
    numbers = {"config": asdict(config), "full_data": data is not None, "losses": losses, "checkpoints": found}
    return numbers | {"table": _comparison(numbers)}


def _checkpoint(problem: Problem, model: nn.Module, split: str, config: OverlapConfig, stages: Stages) -> dict[str, Any]:
    solution = mnist16.top_pairs(problem, model, split, config.k, progress=stages.progress)
    ranking, k = masks.by_magnitude(model), config.k
    curve = overlap(solution, ranking)
    H = hessian(model, problem.criterion, problem.curvature_batches(split))
    random = torch.stack(
        [overlap(solution.eigenvectors, masks.random(ranking.size, seed=seed)).value[:k] for seed in range(config.random_masks)]
    )
    nulls = {"uniform": mask_null(solution, ranking), "layered": mask_null(solution, ranking, layers=model)}
    return {
        **mnist16.facts(solution, k),
        **mnist16.loss_and_accuracy(problem, model),
        "curvature_loss": H.objective.mean_loss,
        "overlap": {"value": _list(curve.value, k), "lower": _list(curve.lower, k), "upper": _list(curve.upper, k)},
        "layerwise": _list(overlap(solution.eigenvectors, masks.layerwise_magnitude(model)).value, k),
        "snip": _list(overlap(solution.eigenvectors, masks.snip(model, H.gradient())).value, k),
        "best": _list(best_overlap(solution).value, k),
        "random": {
            "mean": random.mean(0).tolist(),
            "low": random.min(0).values.tolist(),
            "high": random.max(0).values.tolist(),
        },
        **{f"null_{name}": {"mean": _list(null.mean, k), "std": _list(null.std, k)} for name, null in nulls.items()},
        "gradient_fraction": _list(gradient_fraction(H.gradient().double(), solution).value, k),
        "participation_ratio": _list(participation_ratio(solution), k),
        "layer_shares": {name: _list(share, k) for name, share in space_layer_shares(solution, model).items()},
        "sketch": _sketch(H, ranking, config),
        "size": ranking.size,
    }


def _sketch(H: Any, ranking: masks.Ranking, config: OverlapConfig) -> dict[str, Any] | None:
    """The paper's own method with its sizes: the sketched eigenvalues and overlap."""
    if not config.num_outer:
        return None
    solution: Solution = seigh(
        H, num_outer=config.num_outer, num_inner=config.num_inner, sketch="ssrft", core="published", seed=config.seed
    )
    k = min(config.k, solution.k)
    return {
        "eigenvalues": solution.eigenvalues[:k].tolist(),
        "overlap": _list(overlap(solution, ranking).value, k),
        "seconds": solution.cost.seconds,
    }


def _comparison(numbers: dict[str, Any]) -> list[Row]:
    """Against the published values, where they are of the same data; allowed as promised."""
    rows: list[Row] = []
    if not numbers["full_data"]:
        return rows
    for step, paper in published("mnist16")["steps"].items():
        for split in numbers["config"]["splits"]:
            if (own := numbers["checkpoints"].get(f"{step} {split}")) is None:
                continue
            at = f"step {step}, {split}"
            if split == "train":
                rows.append(row(f"{at}: loss of the batch", paper["batch_loss"], numbers["losses"][int(step)], 2e-5))
            values, theirs = own["overlap"]["value"], paper[split]
            rows.append(row(f"{at}: largest eigenvalue", theirs["eigenvalues"][0], own["eigenvalues"][0], 1e-4))
            rows += [
                row(f"{at}: overlap, k = {k}", theirs["overlap"][k - 1], values[k - 1], 1e-5)
                for k in COMPARED
                if k <= len(values)
            ]
            most = min(350, len(values))
            worst = max(abs(a - b) for a, b in zip(values[:most], theirs["overlap"], strict=False))
            rows.append(row(f"{at}: largest deviation of overlap, all k <= {most}", 0.0, worst, 1e-5))
            best = theirs["best_mask_overlap"]
            rows += [
                row(f"{at}: overlap of the best mask, k = {k}", value, own["best"][int(k) - 1], 1e-5)
                for k, value in best.items()
                if int(k) <= len(own["best"])
            ]
    return rows


def _list(values: Tensor | None, k: int) -> list[float]:
    return values[:k].tolist()


def document(numbers: dict[str, Any]) -> Document:
    """The page."""
    config, found, rows = numbers["config"], numbers["checkpoints"], numbers["table"]
    last = found[f"{config['steps'][-1]} {config['splits'][0]}"]
    size, k = last["size"], config["k"]
    chance = [i / size for i in range(1, k + 1)]
    ratio = last["overlap"]["value"][-1] / chance[-1]
    small = min(9, k - 1)
    complete = min(each["complete"] for each in found.values())
    width = max(
        u - low for each in found.values() for u, low in zip(each["overlap"]["upper"], each["overlap"]["lower"], strict=True)
    )
    sections = [
        Section(
            "Overlap of the largest weights with the top eigenspace",
            "For every k: the share of the top-k Hessian eigenspace on the k largest weights. Shaded around each line: "
            f"the certified interval (at most {width:.0e} wide: not visible). Grey band: the range of "
            f"{config['random_masks']} random masks about chance, k/D. Overlap is not above chance everywhere: at small k "
            "it falls below it late in training.",
            figure_overlaps(numbers, "train" if "train" in config["splits"] else config["splits"][0]),
            alternative="Overlap against k on logarithmic axes for several steps, with chance",
        ),
        Section(
            "Which masks capture the eigenspace",
            "Magnitude beside magnitude within layers, SNIP (|weight times gradient|), and the best mask there is at "
            "each k (largest leverage scores: an upper bound for every mask). Grey: chance, and two standard deviations "
            "about it over uniformly random masks, from the exact variance.",
            figure_masks(numbers),
            alternative="Panels by step: overlap of several masks against k",
        ),
        Section(
            "How much of it is layer composition?",
            "Observed overlap over chance: against uniformly random masks, and against random masks with as many weights "
            "in each layer as the magnitude mask has. What lies above 1 in the second is not explained by the layers "
            "that large weights live in. Shaded: two standard deviations of the null models.",
            figure_ratios(numbers),
            alternative="Ratio of overlap to two null models against k, by step",
        ),
        Section(
            "Exact and sketched",
            f"Eigenvalues by magnitude, exact and from the paper's single-pass sketch ({config['num_outer']} outer, "
            f"{config['num_inner']} inner measurements): towards their end a sketch's eigenvalues are too small; the "
            "overlap is affected much less.",
            figure_spectra(numbers),
            alternative="Magnitudes of exact and sketched eigenvalues against their rank, by step",
        ),
        Section(
            "Where the gradient points",
            "Share of the loss gradient in the top-k eigenspace, on the same samples: far above chance, k/D, once trained.",
            figure_gradients(numbers),
            alternative="Share of the gradient in the top-k eigenspace against k, by step",
        ),
        Section(
            "Paper, measured, difference",
            "Published exact values (6 significant digits) at steps 0, 100 and 1000."
            if rows
            else "This run is on the packaged part of MNIST: another training set than the paper's, so nothing is compared. "
            "`--preset paper --data DIR` with the full MNIST in DIR repeats the paper's run.",
            table=comparison(rows) if rows else None,
        ),
    ]
    highlights = [
        (f"overlap at k = {k}, last step", f"{last['overlap']['value'][-1]:.2%}"),
        ("times chance", f"{ratio:.2f}×"),
        (f"times chance at k = {small + 1}", f"{last['overlap']['value'][small] / chance[small]:.2f}×"),
        ("pairs proven complete, at least", f"{complete}"),
    ]
    if rows:
        highlights.append(("published values reproduced", f"{sum(within([each]) for each in rows)} of {len(rows)}"))
    return Document(
        title="Do large weights lie where the curvature is?",
        summary=(
            f"A tanh network with {size:,} parameters on 16 × 16 MNIST at steps {', '.join(map(str, config['steps']))}: "
            f"the top {k} eigenpairs of its Hessian, certified, and their overlap with masks of parameters."
        ),
        highlights=tuple(highlights),
        sections=sections,
        provenance={
            "source": "Fernandez et al., TMLR 2025 (arXiv 2504.14701), section 6.1, figures 1 (left) and 14",
            "preset": numbers["preset"],
            "data": "all of MNIST" if numbers["full_data"] else "the packaged part of MNIST",
            "solver": "block Krylov in float64 to relative residuals of 1e-8, certified",
        },
    )


def _few(steps: list[int], most: int) -> list[int]:
    """At most ``most`` of the steps, evenly, first and last among them."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)]


def _shown_steps(steps: list[int]) -> list[int]:
    """At most six of the steps, with first, last and 100."""
    return sorted({*_few(steps, 5), *({100} & set(steps))})


def _panels_of(numbers: dict[str, Any], most: int = 3) -> list[tuple[str, dict[str, Any]]]:
    """The checkpoints shown in panels: a few steps of the first split; the paper's 0, 100, 1000 where they are there."""
    config = numbers["config"]
    steps = [s for s in (0, 100, 1000) if s in config["steps"]]
    steps = steps if len(steps) == 3 else _few(list(config["steps"]), most)
    split = config["splits"][0]
    return [(f"step {step}, {split}", numbers["checkpoints"][f"{step} {split}"]) for step in steps]


def figure_overlaps(numbers: dict[str, Any], split: str) -> Any:
    """Overlap against k: a panel a split, a line a step."""
    content = []
    splits = [split, *(s for s in numbers["config"]["splits"] if s != split)]
    for each in splits:
        lines = {}
        steps = _shown_steps(list(numbers["config"]["steps"]))
        for step, colour in zip(steps, CYCLE, strict=False):
            own = numbers["checkpoints"][f"{step} {each}"]
            k = list(range(1, len(own["overlap"]["value"]) + 1))
            lines[f"step {step}"] = Line(
                k, own["overlap"]["value"], own["overlap"]["lower"], own["overlap"]["upper"], colour=colour
            )
        lines["random masks"] = Line(k, own["random"]["mean"], own["random"]["low"], own["random"]["high"], None, GREY)
        content.append(Panel(f"{each} Hessian", lines, (k, [i / own["size"] for i in k]), floor=1e-6))
    return panels(content, x="k", y="overlap", height=2.8, width=7.0 if len(content) > 1 else 4.6, legend_columns=4)


def figure_masks(numbers: dict[str, Any]) -> Any:
    """Overlap of several masks against k, a panel a step."""
    content = []
    for title, own in _panels_of(numbers):
        k = list(range(1, len(own["best"]) + 1))
        mean, std = (torch.tensor(own["null_uniform"][name]) for name in ("mean", "std"))
        lines = {
            "best": Line(k, own["best"]),
            "SNIP": Line(k, own["snip"]),
            "magnitude": Line(k, own["overlap"]["value"]),
            "layerwise magnitude": Line(k, own["layerwise"]),
            "random masks (± 2 s.d.)": Line(
                k, mean, (mean - 2 * std).clamp(min=1e-9).tolist(), (mean + 2 * std).tolist(), None, GREY
            ),
        }
        content.append(Panel(title, lines, (k, [i / own["size"] for i in k]), floor=1e-5))
    return panels(content, x="k", y="overlap with the top-k eigenspace", height=2.6, legend_columns=6)


def figure_ratios(numbers: dict[str, Any]) -> Any:
    """Overlap over the means of both null models."""
    content = []
    for title, own in _panels_of(numbers):
        k, value = list(range(1, len(own["best"]) + 1)), torch.tensor(own["overlap"]["value"])
        lines = {}
        for name, label in (("uniform", "over uniformly random masks"), ("layered", "over random masks with the same layers")):
            mean, std = (torch.tensor(own[f"null_{name}"][what]) for what in ("mean", "std"))
            ratio, spread = value / mean, 2 * std / mean
            lines[label] = Line(k, ratio.tolist(), (ratio - spread).clamp(min=1e-3).tolist(), (ratio + spread).tolist())
        content.append(Panel(title, lines, ([1, k[-1]], [1, 1]), floor=0.02))
    return panels(content, x="k", y="overlap / chance", height=2.4)


def figure_spectra(numbers: dict[str, Any]) -> Any:
    """Magnitudes of exact and sketched eigenvalues."""
    content = []
    for title, own in _panels_of(numbers):
        lines = {"exact": Line(range(1, len(own["eigenvalues"]) + 1), [abs(v) for v in own["eigenvalues"]])}
        if own["sketch"]:
            lines["sketched"] = Line(
                range(1, len(own["sketch"]["eigenvalues"]) + 1), [abs(v) for v in own["sketch"]["eigenvalues"]]
            )
        content.append(Panel(title, lines))
    return panels(content, x="rank", y="|eigenvalue|", height=2.2)


def figure_gradients(numbers: dict[str, Any]) -> Any:
    """Share of the gradient in the top-k eigenspace, a line a step."""
    lines = {}
    split = numbers["config"]["splits"][0]
    for step, colour in zip(_shown_steps(list(numbers["config"]["steps"])), CYCLE, strict=False):
        own = numbers["checkpoints"][f"{step} {split}"]
        k = list(range(1, len(own["gradient_fraction"]) + 1))
        lines[f"step {step}"] = Line(k, own["gradient_fraction"], colour=colour)
    content = [Panel(f"{split} Hessian and gradient", lines, (k, [i / own["size"] for i in k]))]
    return panels(content, x="k", y="share of the gradient", width=4.6, height=2.6, legend_columns=4)


STUDY = Study(
    "mnist16-overlap",
    "Overlap of the largest weights with the top Hessian eigenspace along training",
    "figure 1 (left), figure 14",
    PRESETS,
    {"quick": "half a minute", "paper": "5 minutes"},
    measure,
    document,
)
