"""Spectra and metrics of the study ``mnist16-crystallization``: concentration of both Hessians, seven metrics over steps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from curvscope.estimators import Estimate
from curvscope.operators import hessian
from curvscope.problems import Problem, as_split
from curvscope.report import CYCLE, Line, Panel, Section, panels
from curvscope.studies.engine import Stages
from curvscope.studies.sketched_overlap import _mnist16 as mnist16
from curvscope.subspaces import grassmann, masks, spectral_concentration
from curvscope.system import stage
from curvscope.tall import InMemory
from curvscope.training import Recorder

METRICS: dict[str, grassmann.Metric] = {
    "geodesic": "geodesic",
    "chordal, 2-norm": "chordal_2",
    "chordal, F-norm": "chordal_f",
    "projection, 2-norm": "projection_2",
    "projection, F-norm": "projection_f",
    "Fubini-Study": "fubini_study",
    "overlap": "overlap",
}
PROBES = 64
"""Products with random vectors for the part of the norm outside of the computed pairs."""
EVERY_OTHER_SPLIT = 5
"""Of the Hessian of the other split every fifth step is decomposed: each costs as much as one of the first."""
CHANCE_PAIRS = 20
LARGE, CHANCE_PAIRS_LARGE = 500, 3


def spectra(stages: Stages, problem: Problem, recorder: Recorder, config: Any, sizes: Sequence[int]) -> dict[str, Any]:
    """Return the concentration of the spectrum by split: steps, shares of the squared norm by k, standard errors."""
    found: dict[str, Any] = {}
    other = "test" if config.split == "train" else "train"
    steps = {config.split: list(config.steps), other: list(config.steps)[::EVERY_OTHER_SPLIT]}
    with stage("spectra", sum(map(len, steps.values())), stages.progress) as advance:
        for split, own in steps.items():
            rows = []
            for step in own:
                work = partial(_spectrum, stages, problem, recorder, (split, step), sizes, split == config.split)
                rows.append(stages.numbers(f"spectrum-{split}-{step:06d}", work))
                advance()
            found[split] = {"steps": own, "rows": rows}
    return found


def _spectrum(
    stages: Stages, problem: Problem, recorder: Recorder, which: tuple[str, int], sizes: Sequence[int], is_stored: bool
) -> dict[str, Any]:
    """Of one Hessian: the pairs of the study's own split are there already, those of the other are computed."""
    split, step = which
    model = mnist16.model_at(problem, recorder, step)
    H = hessian(model, problem.criterion, problem.curvature_batches(as_split(split)), dtype=torch.float64)
    if is_stored:
        values = stages.numbers(f"step-{step:06d}", dict)["eigenvalues"]
        vectors = stages.tensors(f"vectors-{step:06d}", dict)["vectors"].double()
    else:
        solution = mnist16.top_pairs(problem, model, split, max(sizes), progress=stages.progress)
        values = solution.eigenvalues[: max(sizes)].tolist()
        vectors = solution.eigenvectors.columns(0, max(sizes))
    known = torch.tensor(values, dtype=torch.float64, device="cpu")
    generator = torch.Generator().manual_seed(step)
    probes = torch.randn(H.shape[0], PROBES, generator=generator, dtype=torch.float64, device="cpu")
    outside = _outside(H, vectors, probes)
    norm = float((known.square().sum() + outside.mean()).sqrt())
    error = float(outside.std() / PROBES**0.5) / (2 * norm)
    found = spectral_concentration(known, Estimate(norm, error, PROBES))
    return {"value": [found.at(k) for k in sizes], "stderr": [float(found.stderr[k - 1]) for k in sizes], "norm": norm}


def _outside(H: Any, vectors: torch.Tensor, probes: torch.Tensor) -> torch.Tensor:
    """Return squared norms of products with random vectors outside of the span of the vectors, (number of probes,)."""
    found: torch.Tensor = H @ (probes - vectors @ (vectors.mT @ probes))
    return found.square().sum(dim=0)


def metrics(stages: Stages, problem: Problem, recorder: Recorder, config: Any, sizes: Sequence[int]) -> dict[str, Any]:
    """Return the similarity of magnitude mask and eigenspace at each step, by metric and k, and that of random spaces."""
    rows = []
    with stage("metrics", len(config.steps), stages.progress) as advance:
        for step in config.steps:
            rows.append(stages.numbers(f"metrics-{step:06d}", partial(_metrics, stages, problem, recorder, step, sizes)))
            advance()
    size = sum(p.numel() for p in recorder.model.parameters())
    chance = stages.numbers("metrics-chance", partial(_chance, size, sizes, config.seed))
    return {"rows": rows, "chance": chance}


def _metrics(stages: Stages, problem: Problem, recorder: Recorder, step: int, sizes: Sequence[int]) -> dict[str, Any]:
    vectors = stages.tensors(f"vectors-{step:06d}", dict)["vectors"].double()
    ranking, found = masks.by_magnitude(mnist16.model_at(problem, recorder, step)), []
    for k in sizes:
        theta = grassmann.angles(ranking.first(k), InMemory(vectors[:, :k]))
        found.append({name: grassmann.similarity_of_angles(theta, metric) for name, metric in METRICS.items()})
    return {"by_k": found}


def _chance(size: int, sizes: Sequence[int], seed: int) -> dict[str, Any]:
    """Medians, smallest and largest similarities of random spaces with the mask, by k."""
    found = []
    for k in sizes:
        generator = torch.Generator().manual_seed(seed + k)
        draws = CHANCE_PAIRS if k <= LARGE else CHANCE_PAIRS_LARGE
        angles = [grassmann.random_angles(size, k, k, generator) for _ in range(draws)]
        values = {
            name: sorted(grassmann.similarity_of_angles(each, metric) for each in angles) for name, metric in METRICS.items()
        }
        found.append({name: [own[0], own[len(own) // 2], own[-1]] for name, own in values.items()})
    return {"by_k": found}


def spectra_section(numbers: dict[str, Any], titles: Sequence[str]) -> Section:
    """Return the section on the concentration of both spectra."""
    content = []
    for place, title in enumerate(titles):
        lines = {}
        for (split, own), colour in zip(numbers["spectra"].items(), CYCLE, strict=False):
            value = [row["value"][place] for row in own["rows"]]
            error = [row["stderr"][place] for row in own["rows"]]
            low, high = ([v + sign * 2 * e for v, e in zip(value, error, strict=True)] for sign in (-1, 1))
            lines[f"{split} Hessian"] = Line(own["steps"], value, low, [min(1.0, h) for h in high], colour=colour)
            lines[f"{split} Hessian, root"] = Line(own["steps"], [v**0.5 for v in value], dashed=1, colour=colour)
        content.append(Panel(title, lines, floor=0.0))
    return Section(
        "Concentration of the spectrum",
        "Share of the squared Frobenius norm of the Hessian in its k eigenvalues of largest magnitude (solid), and its square "
        "root, which the paper's figure shows (dashed). Shaded: two standard errors, from random vectors outside of the "
        "computed pairs.",
        panels(content, x="step", y="kappa of the spectrum", xscale="linear", yscale="linear", height=2.1, legend_columns=4),
        alternative="Concentration of the spectrum against the step, for train and test Hessians",
        shows="figure 15 (bottom)",
    )


def metrics_section(numbers: dict[str, Any], titles: Sequence[str]) -> Section:
    """Return the section on all seven metrics over steps."""
    steps, content, found = list(numbers["config"]["steps"]), [], numbers["metrics"]
    for metric in METRICS:
        lines = {}
        for (place, title), colour in zip(enumerate(titles), CYCLE, strict=False):
            low, middle, high = found["chance"]["by_k"][place][metric]
            ends = [steps[0], steps[-1]]
            lines[title] = Line(steps, [row["by_k"][place][metric] for row in found["rows"]], colour=colour)
            lines[f"{title}, random"] = Line(ends, [middle] * 2, [low] * 2, [high] * 2, 3, colour=colour)
        content.append(Panel(metric, lines, floor=0.0))
    return Section(
        "Mask against eigenspace, under seven metrics",
        "Similarity (1 = the same space) of the magnitude mask and the top-k eigenspace at each step. Dotted, with "
        f"their range: a mask and {CHANCE_PAIRS} random spaces of that dimension ({CHANCE_PAIRS_LARGE} for k above {LARGE}). "
        "Where a metric has collapsed, both lie at 0 and it says nothing.",
        panels(
            content,
            x="step",
            y="similarity",
            xscale="linear",
            yscale="linear",
            columns=4,
            height=1.9,
            share=False,
            legend_columns=4,
        ),
        alternative="Seven panels, one a metric: similarity against the step for several k, with random spaces",
        shows="figure 17",
    )
