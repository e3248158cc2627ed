"""Do the largest weights lie where the curvature is? Every k, exactly, along training (figures 1 left, 4 left and 14)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from curvscope.operators import hessian
from curvscope.problems import Problem, as_split
from curvscope.report import Document, Section
from curvscope.solvers import Solution, seigh
from curvscope.studies.engine import Row, Stages, Study, comparison, published, row, within
from curvscope.studies.sketched_overlap import _mnist16 as mnist16
from curvscope.studies.sketched_overlap._along_training import overlap_section, training_section
from curvscope.studies.sketched_overlap._overlap_figures import (
    figure_gradients,
    figure_masks,
    figure_overlaps,
    figure_ratios,
    figure_spectra,
)
from curvscope.studies.sketched_overlap._readings import facts, loss_and_accuracy, read_off
from curvscope.subspaces import masks, overlap

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
                f"step-{step:06d}-{split}", partial(_checkpoint, problem, model, split, config, stages)
            )
    numbers = {"config": asdict(config), "full_data": data is not None, "losses": losses, "checkpoints": found}
    return numbers | {"table": _comparison(numbers)}


def _checkpoint(problem: Problem, model: nn.Module, split: str, config: OverlapConfig, stages: Stages) -> dict[str, Any]:
    solution = mnist16.top_pairs(problem, model, split, config.k, progress=stages.progress)
    H = hessian(model, problem.criterion, problem.curvature_batches(as_split(split)))
    return {
        **facts(solution, config.k),
        **loss_and_accuracy(problem, model),
        **read_off(solution, H, model, config.k, random_masks=config.random_masks),
        "sketch": _sketch(H, masks.by_magnitude(model), config),
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
        "overlap": overlap(solution, ranking).value[:k].tolist(),
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
            f"{config['random_masks']} random masks about chance, k/D. {_against_chance(last['overlap']['value'], chance)}",
            figure_overlaps(numbers, "train" if "train" in config["splits"] else config["splits"][0]),
            alternative="Overlap against k on logarithmic axes for several steps, with chance",
            shows="figure 14",
        ),
        overlap_section(numbers, "figure 1 (left), figure 4 (left)"),
        training_section(numbers["losses"], _tested(numbers), "figure 15 (top), which is of the same training"),
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
            f"{config['num_inner']} inner measurements): a sketch's are least accurate towards their end.",
            figure_spectra(numbers),
            alternative="Magnitudes of exact and sketched eigenvalues against their rank, by step",
        ),
        Section(
            "Where the gradient points",
            "Share of the loss gradient in the top-k eigenspace, on the same samples; dashed: chance, k/D.",
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


def _tested(numbers: dict[str, Any]) -> dict[int, dict[str, float]]:
    """Loss and accuracy on all test samples by step."""
    split = numbers["config"]["splits"][0]
    return {
        step: {key: numbers["checkpoints"][f"{step} {split}"][key] for key in ("test_loss", "test_accuracy", "curvature_loss")}
        for step in numbers["config"]["steps"]
    }


def _against_chance(values: list[float], chance: list[float]) -> str:
    """Return where the overlap of the last step lies, in a sentence."""
    below = [i + 1 for i, (value, level) in enumerate(zip(values, chance, strict=True)) if value < level]
    if not below:
        return "At the last step overlap is above chance at every k."
    where = f"k = {below[0]}" if len(below) == 1 else f"{len(below)} of the {len(values)} values of k, from {below[0]} on"
    return f"At the last step overlap is not above chance everywhere: it is below at {where}."


STUDY = Study(
    "mnist16-overlap",
    "Overlap of the largest weights with the top Hessian eigenspace along training",
    "figure 1 (left), figure 4 (left), figure 14, figure 15 (top)",
    PRESETS,
    {"quick": "half a minute", "paper": "5 minutes"},
    measure,
    document,
)
