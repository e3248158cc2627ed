"""Overlap along training on large networks: certified Krylov beside the paper's sketch (figures 1, 3 and 4; table 1)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from curvscope.errors import InvalidArgument
from curvscope.operators import CurvatureOperator, hessian
from curvscope.operators.objective import BATCH_NORMS
from curvscope.problems import Pair, Problem, as_split, get, initial_statistics, lowest_of_each_class
from curvscope.solvers import Solution, certify, eigsh, seigh
from curvscope.studies.engine import Stages, Study, recorded
from curvscope.studies.sketched_overlap._overlap_at_scale_page import comparison_rows, document
from curvscope.studies.sketched_overlap._readings import facts, loss_and_accuracy, read_off
from curvscope.subspaces import mask_null, masks, overlap
from curvscope.system import Progress, preferred

RECORDED, INITIAL = "recorded", "initial"
"""Statistics of BatchNorm layers: those of the checkpoint, or those of a new network (as published for ImageNet)."""


Make = Callable[[], CurvatureOperator]
"""Makes the operator when a stage needs it."""


@dataclass(frozen=True)
class ScaleConfig:
    """Settings: what is trained and measured.

    ``k`` pairs by Krylov to ``tol`` (``spare`` more, for the certificate); ``num_outer`` and ``num_inner`` of the sketch, 0 for
    none; ``samples_per_class`` for curvature, None: the problem's; ``every``: most steps of training that an interruption
    costs; ``checkpoints``: a folder of recorded steps instead of training; ``keep_vectors``: eigenvectors stay on disk.
    """

    problem: str = "cifar10_3c3d"
    steps: tuple[int, ...] = (0, 300)
    splits: tuple[str, ...] = ("train",)
    k: int = 200
    spare: int = 20
    tol: float = 1e-3
    num_outer: int = 200
    num_inner: int = 400
    samples_per_class: int | None = 10
    statistics: tuple[str, ...] = (RECORDED,)
    random_masks: int = 5
    every: int = 500
    checkpoints: str | None = None
    keep_vectors: bool = False
    seed: int = 12345


PAPER = ScaleConfig(
    steps=(0, 2000, 4000, 6000, 8000), splits=("train", "test"), num_outer=1000, num_inner=2000, samples_per_class=None
)
PRESETS = {
    "quick": ScaleConfig(),
    "paper": PAPER,
    "paper-cifar100": ScaleConfig(**{**asdict(PAPER), "problem": "cifar100_allcnnc", "splits": ("test",)}),
    "paper-imagenet": ScaleConfig(
        **{
            **asdict(PAPER),
            "problem": "imagenet_resnet18",
            "steps": (0, 2000, 8000),
            "splits": ("test",),
            "num_outer": 1500,
            "num_inner": 3000,
            "statistics": (INITIAL, RECORDED),
        }
    ),
}


def measure(stages: Stages, config: ScaleConfig, data: Path | None) -> dict[str, Any]:
    """Checkpoints, then a stage for each solver, step, split and kind of statistics."""
    problem = get(config.problem, data=data)
    samples = {split: _samples(problem, split, config.samples_per_class) for split in config.splits}  # before the training
    recorder, losses = recorded(
        stages, problem, config.steps, seed=config.seed, every=config.every, checkpoints=config.checkpoints
    )
    found = {}
    for step in config.steps:
        for statistics in _statistics(problem, config):
            model = _model_at(problem, recorder.state(step), statistics)
            tested = stages.numbers(f"accuracy-{step:06d}-{statistics}", partial(loss_and_accuracy, problem, model))
            for split in config.splits:
                name = f"{step:06d}-{split}-{statistics}"
                measured = _measured(stages, config, name, model, cache(partial(_curvature, problem, model, samples[split])))
                found[key(step, split, statistics)] = {**measured, **tested}
    numbers = {
        "config": asdict(config),
        "losses": losses,
        "checkpoints": found,
        "problem": _facts(problem, samples),
        "images": getattr(getattr(problem, "images", None), "origin", "") if data is not None else "",
    }
    return numbers | {"compared": comparison_rows(numbers)}


def key(step: int, split: str, statistics: str) -> str:
    """The name of a checkpoint's numbers; those with the recorded statistics go without saying."""
    return f"{step} {split}" if statistics == RECORDED else f"{step} {split} {statistics}"


def _samples(problem: Problem, split: str, per_class: int | None) -> Sequence[Pair]:
    """The problem's curvature samples, or the first of each class in one batch."""
    batches = problem.curvature_batches(as_split(split))
    if per_class is None:
        return batches
    x, y = (torch.cat(part) for part in zip(*batches, strict=True))
    chosen = lowest_of_each_class(y, per_class)
    return [(x[chosen], y[chosen])]


def _statistics(problem: Problem, config: ScaleConfig) -> tuple[str, ...]:
    if unknown := [name for name in config.statistics if name not in (RECORDED, INITIAL)]:
        raise InvalidArgument(f"statistics={unknown[0]!r}: choose {RECORDED!r} or {INITIAL!r}")
    normed = any(isinstance(module, BATCH_NORMS) for module in problem.model().modules())
    return config.statistics if normed else (RECORDED,)


def _model_at(problem: Problem, state: dict[str, torch.Tensor], statistics: str) -> nn.Module:
    model = problem.model()
    with torch.no_grad():
        model.load_state_dict(state)
    if statistics == INITIAL:
        initial_statistics(model)
    return model.to(preferred())


def _curvature(problem: Problem, model: nn.Module, samples: Sequence[Pair]) -> CurvatureOperator:
    return hessian(model, problem.criterion, samples)


def _facts(problem: Problem, samples: dict[str, Sequence[Pair]]) -> dict[str, Any]:
    defaults = problem.defaults
    return {
        "description": problem.description,
        "network": problem.definition.get("network", problem.description),
        "steps_per_epoch": problem.steps_per_epoch,
        "size": sum(p.numel() for p in problem.model().parameters()),
        "learning_rate": defaults.learning_rate,
        "batch_size": defaults.batch_size,
        "samples": {split: sum(len(y) for _, y in batches) for split, batches in samples.items()},
    }


def _measured(stages: Stages, config: ScaleConfig, name: str, model: nn.Module, operator: Make) -> dict[str, Any]:
    """Both solvers' numbers; vectors take D numbers each, and go when what the study needs of them is written."""
    found = {}
    for solver, work in (("krylov", _krylov), ("sketch", _sketch)):
        place = stages.run.path / "eigs" / f"{solver}-{name}"
        found[solver] = stages.numbers(f"{solver}-{name}", partial(work, config, operator, model, place, stages.progress))
        if not config.keep_vectors:
            shutil.rmtree(place, ignore_errors=True)
    return {**found["krylov"], "sketch": found["sketch"] or None}


def _krylov(config: ScaleConfig, operator: Make, model: nn.Module, place: Path, progress: Progress) -> dict[str, Any]:
    """The pairs of largest magnitude, certified, and all that is read off them; an interrupted solve is resumed."""
    H = operator()
    wanted = min(H.shape[0], config.k + config.spare)
    solution = certify(H, eigsh(H, wanted, method="krylov", tol=config.tol, run=place, progress=progress), progress=progress)
    k = min(config.k, solution.k)
    return {**facts(solution, k), **read_off(solution, H, model, k, random_masks=config.random_masks)}


def _sketch(config: ScaleConfig, operator: Make, model: nn.Module, place: Path, progress: Progress) -> dict[str, Any]:
    """The paper's method with its sizes; the left test matrix, which costs no products, is one of sparse signs."""
    if not config.num_outer:
        return {}
    sizes: dict[str, Any] = {"num_outer": config.num_outer, "num_inner": config.num_inner}
    solution: Solution = seigh(
        operator(), **sizes, sketch="ssrft", core="published", seed=config.seed, run=place, progress=progress
    )
    ranking = masks.by_magnitude(model)
    nulls = {"uniform": mask_null(solution, ranking), "layered": mask_null(solution, ranking, layers=model)}
    return {
        "eigenvalues": solution.eigenvalues.tolist(),
        "residuals": solution.relative_residuals.tolist(),
        "overlap": overlap(solution, ranking).value.tolist(),
        **{f"null_{each}": null.mean.tolist() for each, null in nulls.items()},
        "products": solution.cost.products,
        "seconds": solution.cost.seconds,
        "stages": solution.cost.stages,
    }


STUDY = Study(
    "overlap-at-scale",
    "Overlap of the largest weights with the top Hessian eigenspace, on CIFAR-10, CIFAR-100 and ImageNet",
    "figure 1 (right), figure 3, figure 4 (right), table 1",
    PRESETS,
    {
        "quick": "under 16 minutes (measured on one core)",
        "paper": "10 hours (ten Hessians; one was measured)",
        "paper-cifar100": "days (a GPU is advised)",
        "paper-imagenet": "a GPU is needed",
    },
    measure,
    document,
)
