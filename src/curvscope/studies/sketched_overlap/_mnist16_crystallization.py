"""How early do mask and eigenspace settle? Concentration, masks and eigenspaces over steps (figures 15, 16, 17)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument
from curvscope.problems import Problem
from curvscope.report import Document, Line, Panel, Section, heatmaps, panels
from curvscope.studies.engine import Row, Stages, Study, comparison, published, row, within
from curvscope.studies.sketched_overlap import _mnist16 as mnist16
from curvscope.studies.sketched_overlap._along_training import training_section
from curvscope.studies.sketched_overlap._crystallization_more import metrics, metrics_section, spectra, spectra_section
from curvscope.studies.sketched_overlap._readings import certificate_of, facts, loss_and_accuracy
from curvscope.subspaces import (
    OverlapCurve,
    gini,
    kappa,
    mask_null,
    mask_size,
    masks,
    overlap,
    overlap_matrix,
    participation_ratio,
)
from curvscope.system import stage
from curvscope.tall import InMemory


@dataclass(frozen=True)
class CrystallizationConfig:
    """Settings: steps, and shares k/D of parameters and of eigenvectors."""

    steps: tuple[int, ...] = tuple(range(0, 101, 20))
    rhos: tuple[float, ...] = (0.05, 0.01, 0.005)
    split: str = "train"
    seed: int = 12345


PRESETS = {
    "quick": CrystallizationConfig(),
    "paper": CrystallizationConfig(steps=tuple(range(0, 251, 5)), rhos=(0.2, 0.05, 0.01, 0.005)),
}


def measure(stages: Stages, config: CrystallizationConfig, data: Path | None) -> dict[str, Any]:
    """Train; eigenpairs at each step, kept in float32; then every step against every other."""
    if len({later - earlier for earlier, later in pairwise(config.steps)}) != 1 or config.steps[1] <= config.steps[0]:
        raise InvalidArgument(f"steps={config.steps}: choose at least two, evenly spaced, such as 0,50,100")
    problem = mnist16.problem(data)
    recorder, losses = mnist16.trained(stages, problem, config.steps, config.seed)
    found, most = [], mask_size(sum(p.numel() for p in recorder.model.parameters()), max(config.rhos))
    with stage("steps", len(config.steps), stages.progress) as advance:
        for step in config.steps:
            found.append(_checkpoint(stages, problem, mnist16.model_at(problem, recorder, step), step, most, config))
            advance()
    rankings = [masks.by_magnitude(mnist16.model_at(problem, recorder, step)) for step in config.steps]
    sizes = [mask_size(rankings[0].size, rho) for rho in config.rhos]
    numbers = {
        "config": asdict(config),
        "full_data": data is not None,
        "D": rankings[0].size,
        "k": sizes,
        "losses": losses,
        "checkpoints": found,
        "mask_iou": overlap_matrix(rankings, sizes).iou.tolist(),
        "mask_iou_355": overlap_matrix(rankings, [355]).iou[0].tolist(),
        "eigenspace_overlap": _eigenspaces(stages, config, sizes),
        "negative_count_agreement": _counts(found, sizes),
        "spectra": spectra(stages, problem, recorder, config, sizes),
        "metrics": metrics(stages, problem, recorder, config, sizes),
    }
    return numbers | {"table": _comparison(numbers)}


def _checkpoint(
    stages: Stages, problem: Problem, model: nn.Module, step: int, most: int, config: CrystallizationConfig
) -> dict[str, Any]:
    """Numbers and vectors of one step; the vectors are written first, so that numbers are there only with them."""

    def compute() -> dict[str, Any]:
        """Pairs and what is said of them."""
        solution = mnist16.top_pairs(problem, model, config.split, most, progress=stages.progress)
        vectors = solution.eigenvectors.columns(0, most)
        stages.tensors(_vectors(step), lambda: {"vectors": vectors.float()})
        theta = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
        ranking = masks.by_magnitude(model)
        curve, null = overlap(solution, ranking), mask_null(InMemory(vectors), ranking)
        sizes = [mask_size(ranking.size, rho) for rho in config.rhos]
        at = torch.tensor(sizes, device="cpu") - 1
        return {
            **facts(solution, most),
            **loss_and_accuracy(problem, model),
            "kappa": [kappa(theta, k=k) for k in sizes],
            "kappa_unsquared": [kappa(theta, k=k, squared=False) for k in sizes],
            "kappa_by_layer": {
                name: [kappa(p, rho) for rho in config.rhos] for name, p in model.named_parameters() if p.ndim > 1
            },
            "gini": gini(theta),
            "overlap": {
                "value": curve.value[at].tolist(),
                **_bounds(curve, at),
                "null_std": null.std[at].tolist(),
            },
            "sine": [certificate_of(solution).space_sine(k) / k**0.5 for k in sizes],
            "negative": [int((solution.eigenvalues[:k] < 0).sum()) for k in sizes],
            "participation_ratio": float(participation_ratio(vectors[:, :35]).median()),
        }

    return stages.numbers(f"step-{step:06d}", compute)


def _bounds(curve: OverlapCurve, at: Tensor) -> dict[str, list[float]]:
    """The certified interval; the solution that the curve is of has a certificate, so both ends are there."""
    ends = {"lower": curve.lower, "upper": curve.upper}
    return {name: end[at].tolist() for name, end in ends.items() if end is not None}


def _vectors(step: int) -> str:
    return f"vectors-{step:06d}"


def _eigenspaces(stages: Stages, config: CrystallizationConfig, sizes: list[int]) -> list[list[list[float]]]:
    """True overlaps of the eigenspaces of every two steps, (k, T, T); a stage for each step."""
    count = len(config.steps)

    def vectors(i: int) -> Tensor:
        """Of the i-th step, as kept."""
        return stages.tensors(_vectors(config.steps[i]), dict)["vectors"]

    matrix, at = torch.ones(len(sizes), count, count, dtype=torch.float64, device="cpu"), torch.tensor(sizes, device="cpu") - 1
    with stage("eigenspaces over steps", count, stages.progress) as advance:
        for i, step in enumerate(config.steps):

            def against_earlier(i: int = i) -> dict[str, Any]:
                """Overlaps of one step with all before it."""
                own = InMemory(vectors(i))
                return {"rows": [overlap(own, InMemory(vectors(j)), check=False).value[at].tolist() for j in range(i)]}

            rows = stages.numbers(f"eigenspaces-{step:06d}", against_earlier)["rows"]
            for j, values in enumerate(rows):
                matrix[:, i, j] = matrix[:, j, i] = torch.tensor(values, dtype=torch.float64, device="cpu")
            advance()
    return matrix.tolist()


def _counts(found: list[dict[str, Any]], sizes: list[int]) -> list[list[list[float]]]:
    """1 - |n_i - n_j| / k for the numbers n of negative eigenvalues in the top k: what Fig. 16's Hessian rows contain."""
    counts = torch.tensor([each["negative"] for each in found], dtype=torch.float64, device="cpu").T
    return [(1 - (n[:, None] - n).abs() / k).tolist() for n, k in zip(counts, sizes, strict=True)]


def _comparison(numbers: dict[str, Any]) -> list[Row]:
    """Against published values of this data: losses, eigenvalues, counts, overlaps, and the masks of steps 0 and 100."""
    rows: list[Row] = []
    config = numbers["config"]
    if not numbers["full_data"]:
        return rows
    paper, steps = published("mnist16"), list(config["steps"])
    for step, theirs in paper["steps"].items():
        if int(step) not in steps:
            continue
        own, theirs = numbers["checkpoints"][steps.index(int(step))], theirs[config["split"]]
        counts = theirs["negative_in_top_k"]
        for k, n, value in zip(numbers["k"], own["negative"], own["overlap"]["value"], strict=True):
            if str(k) in counts:
                rows.append(row(f"step {step}: negative eigenvalues in the top {k}", counts[str(k)], n, 0.5))
            if k <= len(theirs["overlap"]):
                rows.append(row(f"step {step}: overlap, k = {k}", theirs["overlap"][k - 1], value, 1e-5))
        rows += [
            row(
                f"step {step}: eigenvalue {i}",
                theirs["eigenvalues"][i - 1],
                own["eigenvalues"][i - 1],
                1e-4 * abs(theirs["eigenvalues"][i - 1]),
            )
            for i in (1, 10, 100, 350)
            if i <= len(own["eigenvalues"])
        ]
    for pair, value in paper["magnitude_mask_iou_k355"].items():
        first, second = map(int, pair.split("-"))
        if first in steps and second in steps:
            own = numbers["mask_iou_355"][steps.index(first)][steps.index(second)]
            rows.append(row(f"IoU of magnitude masks, k = 355, steps {first} and {second}", value, own, 1e-5))
    return rows


def document(numbers: dict[str, Any]) -> Document:
    """The page."""
    config, found, rows = numbers["config"], numbers["checkpoints"], numbers["table"]
    steps, sizes = list(config["steps"]), numbers["k"]
    titles = [f"k = {k} ({rho:g} D)" for k, rho in zip(sizes, config["rhos"], strict=True)]
    settled = _first_stable_step(numbers)
    sections = [
        Section(
            "Concentration of the parameters",
            "Share of the squared norm of all parameters on the k largest of them (solid: kappa as the paper defines "
            "it), and its square root, the ratio of the norms (dashed: what the paper's figure 15 and its logs show).",
            figure_kappa(numbers),
            alternative="Kappa against step for several k, squared and not",
            shows="figure 15 (parameters)",
        ),
        spectra_section(numbers, titles),
        training_section(numbers["losses"], dict(zip(steps, found, strict=True)), "figure 15 (top)"),
        Section(
            "Masks and eigenspaces of every two steps",
            "Upper row: intersection over union of the magnitude masks. Middle: overlap of the top-k Hessian "
            "eigenspaces, ||U_s' U_t||_F^2 / k. Lower: 1 - |n_s - n_t| / k for the numbers of negative eigenvalues among "
            "the top k, which is what the Hessian rows of the paper's figure 16 contain: a difference of two counts, "
            "which is high for unrelated spaces too. Chance is k/D for eigenspaces and about k/(2D) for the masks' IoU.",
            figure_matrices(numbers, titles),
            alternative="Three rows of square images over steps: mask IoU, eigenspace overlap, agreement of counts",
            shows="figure 16",
        ),
        Section(
            "How long until they settle",
            "The same quantities between neighbouring steps (solid: how fast they turn) and between each step and the "
            "last (dashed: how much of the end is there already).",
            figure_settling(numbers, titles),
            alternative="Similarity to the next step and to the last step against step, for masks and eigenspaces",
        ),
        Section(
            "Overlap of mask and eigenspace over steps",
            "Overlap of the k largest weights with the top-k eigenspace at each step; dashed: chance, k/D; shaded: two "
            "standard deviations of random masks about chance. The certified intervals of the overlaps are narrower than "
            "the lines.",
            figure_overlap(numbers),
            alternative="Overlap against step for several k, with chance",
        ),
        metrics_section(numbers, titles),
        Section(
            "Paper, measured, difference",
            "Published values at those of the steps 0 and 100 that are in this run; figures 15 to 17 give no numbers."
            if rows
            else "This run is on the packaged part of MNIST, another training set than the paper's: nothing is compared. "
            "`--preset paper --data DIR` with the full MNIST in DIR repeats the paper's run.",
            table=comparison(rows) if rows else None,
        ),
    ]
    highlights = [
        (f"mask IoU of first and last step, {titles[0]}", f"{numbers['mask_iou'][0][0][-1]:.2f}"),
        ("eigenspace overlap, likewise", f"{numbers['eigenspace_overlap'][0][0][-1]:.2f}"),
        ("step from which masks keep half of the last (IoU ≥ 0.5)", f"{settled}"),
        ("pairs proven complete, at least", f"{min(each['complete'] for each in found)} of {max(sizes)}"),
    ]
    if rows:
        highlights.append(("published values reproduced", f"{sum(within([each]) for each in rows)} of {len(rows)}"))
    return Document(
        title="When do mask and eigenspace crystallize?",
        summary=(
            f"The network of mnist16 (D = {numbers['D']:,}) at steps {steps[0]} to {steps[-1]}, every "
            f"{steps[1] - steps[0]}: certified top {max(sizes)} eigenpairs of the {config['split']} Hessian at each."
        ),
        highlights=tuple(highlights),
        sections=sections,
        provenance={
            "source": "Fernandez et al., TMLR 2025 (arXiv 2504.14701), appendix B.1, figures 15 to 17",
            "preset": numbers["preset"],
            "data": "all of MNIST" if numbers["full_data"] else "the packaged part of MNIST",
            "solver": "block Krylov in float64 to relative residuals of 1e-8, certified; vectors kept in float32",
        },
    )


def _first_stable_step(numbers: dict[str, Any]) -> int:
    """The first step from which on the mask of the largest k shares IoU >= 0.5 with the last one."""
    to_last = [matrix[-1] for matrix in numbers["mask_iou"][0]]
    steps = list(numbers["config"]["steps"])
    first = len(steps) - 1
    while first > 0 and to_last[first - 1] >= 0.5:
        first -= 1
    return int(steps[first])


def figure_kappa(numbers: dict[str, Any]) -> Any:
    """Kappa over steps, squared and not."""
    steps = list(numbers["config"]["steps"])
    content = []
    for place, k in enumerate(numbers["k"]):
        lines = {
            "kappa, squared norms": Line(steps, [each["kappa"][place] for each in numbers["checkpoints"]]),
            "its root (as in the paper's Fig. 15)": Line(
                steps, [each["kappa_unsquared"][place] for each in numbers["checkpoints"]], dashed=1
            ),
        }
        content.append(Panel(f"k = {k}", lines, (steps, [k / numbers["D"]] * len(steps)), floor=0.0))
    return panels(
        content, x="step", y="kappa", xscale="linear", yscale="linear", height=2.1, share=False, chance_label="equal magnitudes"
    )


def figure_matrices(numbers: dict[str, Any], titles: list[str]) -> Any:
    """Every step against every other."""
    rows = {
        "mask IoU": numbers["mask_iou"],
        "eigenspace overlap": numbers["eigenspace_overlap"],
        "count agreement": numbers["negative_count_agreement"],
    }
    arrays = {label: [np.array(matrix) for matrix in matrices] for label, matrices in rows.items()}
    return heatmaps(arrays, titles, ticks=list(numbers["config"]["steps"]), axis="step", colour="similarity", lowest=0.0)


def figure_settling(numbers: dict[str, Any], titles: list[str]) -> Any:
    """Similarity to the next and to the last step."""
    steps = list(numbers["config"]["steps"])
    content = []
    for place, title in enumerate(titles):
        lines = {}
        for label, key, colour in (
            ("mask IoU", "mask_iou", "#0072B2"),
            ("eigenspace overlap", "eigenspace_overlap", "#D55E00"),
        ):
            matrix = np.array(numbers[key][place])
            lines[f"{label}, to the next step"] = Line(steps[:-1], matrix.diagonal(1).tolist(), colour=colour)
            lines[f"{label}, to the last step"] = Line(steps, matrix[-1].tolist(), dashed=1, colour=colour)
        chance = numbers["k"][place] / numbers["D"]
        content.append(Panel(title, lines, (steps, [chance] * len(steps)), floor=0.0))
    return panels(
        content,
        x="step",
        y="similarity",
        xscale="linear",
        yscale="linear",
        height=2.1,
        legend_columns=3,
        chance_label="chance, k/D",
    )


def figure_overlap(numbers: dict[str, Any]) -> Any:
    """Overlap of mask and eigenspace over steps."""
    steps, content = list(numbers["config"]["steps"]), []
    for place, k in enumerate(numbers["k"]):
        own = [{name: values[place] for name, values in each["overlap"].items()} for each in numbers["checkpoints"]]
        chance = k / numbers["D"]
        lines = {
            "overlap": Line(steps, [o["value"] for o in own], [o["lower"] for o in own], [o["upper"] for o in own]),
            "random masks (± 2 s.d.)": Line(
                steps,
                [chance] * len(steps),
                [max(0.0, chance - 2 * o["null_std"]) for o in own],
                [chance + 2 * o["null_std"] for o in own],
                None,
                "#6b7280",
            ),
        }
        content.append(Panel(f"k = {k}", lines, (steps, [chance] * len(steps)), floor=0.0))
    return panels(content, x="step", y="overlap", xscale="linear", yscale="linear", height=2.1, share=False)


STUDY = Study(
    "mnist16-crystallization",
    "Parameter masks and Hessian eigenspaces over steps",
    "figure 15 (parameters, top, bottom), figures 16 and 17",
    PRESETS,
    {"quick": "a few minutes (not measured)", "paper": "an hour (not measured since it decomposes both Hessians)"},
    measure,
    document,
)
