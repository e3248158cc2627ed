"""The whole house in two minutes: a real network on real digits, from training to certified overlap."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from curvscope.operators import hessian
from curvscope.problems import Problem
from curvscope.report import Document, Section, Table, figures
from curvscope.solvers import Solution, certify, eigsh
from curvscope.subspaces import OverlapCurve, masks, overlap
from curvscope.system import Progress
from curvscope.training import Recorder, evaluate, train

METHODS = {"krylov": "Krylov", "seigh": "SEIGH"}


@dataclass(frozen=True)
class DemoConfig:
    """Settings of the demo: pairs, products for each method, and the k at which the overlap is quoted."""

    k: int = 350
    max_products: int = 710
    shown: tuple[int, ...] = (10, 50, 100, 350)
    seed: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """One step of training, measured: eigenpairs by method, overlap with the magnitude mask by method."""

    step: int
    loss: float
    accuracy: float
    solutions: dict[str, Solution]
    curves: dict[str, OverlapCurve]


def run_demo(problem: Problem, config: DemoConfig | None = None, *, progress: Progress = None) -> list[Checkpoint]:
    """Train the problem's network, and measure the training Hessian at each of its recorded steps.

    Cost: training to the last step; a step, ``max_products`` + k products a method and k + 69 for the certificate.
    """
    config = config or DemoConfig()
    model = problem.model()
    recorder = Recorder(model, problem.defaults.steps)
    train(problem, model, recorder, progress=progress)
    return [_measure(problem, recorder.load(step, model), step, config, progress) for step in recorder.recorded]


def _measure(problem: Problem, model: torch.nn.Module, step: int, config: DemoConfig, progress: Progress) -> Checkpoint:
    loss, accuracy = evaluate(problem, model)
    H = hessian(model, problem.criterion, problem.curvature_batches("train"))
    ranking = masks.by_magnitude(model)
    budget: dict[str, Any] = {"k": config.k, "max_products": config.max_products, "seed": config.seed, "progress": progress}
    krylov: Solution = eigsh(H, method="krylov", tol=0, **budget)
    sketched: Solution = eigsh(H, method="seigh", **budget)
    solutions = {"krylov": certify(H, krylov, progress=progress), "seigh": sketched}
    curves = {method: overlap(solution, ranking) for method, solution in solutions.items()}
    return Checkpoint(step, loss, accuracy, solutions, curves)


def table(checkpoints: list[Checkpoint], config: DemoConfig | None = None) -> Table:
    """The demo's numbers: a row a step and method, and a row of chance levels."""
    config = config or DemoConfig()
    heads = ["step", "method", "products", "seconds", "median\nresidual", "worst\nresidual"]
    heads += [f"overlap\nk = {k}" for k in config.shown]
    rows = []
    for point in checkpoints:
        for method, solution in point.solutions.items():
            relative, curve = solution.relative_residuals, point.curves[method]
            row = [str(point.step), METHODS[method], str(solution.cost.products), f"{solution.cost.seconds:.1f}"]
            row += [f"{float(relative.median()):.0e}", f"{float(relative.max()):.0e}"]
            rows.append(row + [f"{curve.at(k):.4f}" for k in config.shown])
    size = checkpoints[0].curves["krylov"].size
    rows.append(["all", "chance", "", "", "", ""] + [f"{k / size:.4f}" for k in config.shown])
    return Table(heads, rows)


def numbers(checkpoints: list[Checkpoint], config: DemoConfig | None = None) -> dict[str, object]:
    """Everything that is drawn, as plain numbers for JSON."""
    return {
        "config": asdict(config or DemoConfig()),
        "steps": [
            {
                "step": point.step,
                "test_loss": point.loss,
                "test_accuracy": point.accuracy,
                "methods": {
                    method: {
                        "status": str(solution.status),
                        "products": solution.cost.products,
                        "seconds": solution.cost.seconds,
                        "eigenvalues": solution.eigenvalues.tolist(),
                        "residual_norms": solution.residual_norms.tolist(),
                        "overlap": point.curves[method].to_dict(),
                        "complete": _complete(solution),
                        "provenance": solution.provenance,
                    }
                    for method, solution in point.solutions.items()
                },
            }
            for point in checkpoints
        ],
    }


def document(problem: Problem, checkpoints: list[Checkpoint], config: DemoConfig | None = None) -> Document:
    """The report: overlap, spectrum, residuals, and the numbers behind them."""
    config = config or DemoConfig()
    krylov = {f"step {point.step}": point.solutions["krylov"] for point in checkpoints}
    last = checkpoints[-1]
    size = last.curves["krylov"].size
    complete = _complete(last.solutions["krylov"])
    ratio = float(last.curves["krylov"].ratio[config.k - 1])
    worst = {method: float(solution.relative_residuals.max()) for method, solution in last.solutions.items()}
    return Document(
        title="Do large weights lie where the curvature is?",
        summary=(
            f"A tanh network with {size:,} parameters, trained on 16 × 16 MNIST to {last.accuracy:.0%} test accuracy. At steps "
            f"{', '.join(str(point.step) for point in checkpoints)} we computed the top {config.k} eigenpairs of its training "
            f"Hessian, twice, with {config.max_products} products each: by block Krylov and by a single-pass sketch."
        ),
        highlights=(
            (f"overlap at k = {config.k}, step {last.step}", f"{last.curves['krylov'].at(config.k):.1%}"),
            ("times chance level", f"{ratio:.1f}×"),
            ("proven to be the largest", f"{complete} of {config.k}"),
            ("worst residual, block Krylov", f"{worst['krylov']:.0e}"),
            ("worst residual, sketch", f"{worst['seigh']:.0e}"),
        ),
        sections=[
            Section(
                "Overlap of the largest weights with the top eigenspace",
                "For every k: the share of the top-k eigenspace on the k largest weights. Solid: block Krylov; shaded: the "
                "interval that holds the overlap of the true eigenspace, except with probability 1e-6 (too narrow to see "
                "until the pairs at the end can no longer be told from the rest); dotted: the sketch; dashed: what a random "
                "mask would get.",
                figures.overlaps(
                    {f"step {point.step}": point.curves["krylov"] for point in checkpoints},
                    dotted={f"step {point.step}": point.curves["seigh"] for point in checkpoints},
                    dotted_label="the same, by the sketch",
                ),
                alternative="Overlap against k on logarithmic axes for each step, with the chance level k/D",
            ),
            Section(
                "The spectrum: bulk and outliers",
                f"Each coloured bar counts computed eigenvalues (the top {config.k} by magnitude, a tick below each); the grey "
                f"bar is the bulk of the other {size - config.k:,}. Training grows a handful of "
                "large positive outliers out of a bulk that stays near zero.",
                figures.spectra(krylov),
                alternative="Histograms of the eigenvalues at each step, logarithmic counts",
            ),
            Section(
                "How right are the pairs?",
                "The residual of every pair, ‖H v − λ v‖, measured with fresh products and shown relative to |λ|. Within one "
                "residual of λ there certainly is an eigenvalue; a relative residual near 1 tells nothing any more.",
                figures.residuals({f"step {point.step}": _by_label(point) for point in checkpoints}),
                alternative="Relative residual of each pair on a logarithmic axis, for both methods, at each step",
            ),
            Section(
                "The numbers",
                "Residuals are relative to |λ|; the seconds include measuring them.",
                table=table(checkpoints, config),
            ),
        ],
        provenance=_provenance(problem, last.solutions["krylov"]),
    )


def _complete(solution: Solution) -> int:
    """Return how many of the first pairs are proven to be the largest; 0 without a certificate."""
    return solution.certificate.complete if solution.certificate else 0


def _by_label(point: Checkpoint) -> dict[str, Solution]:
    return {METHODS[method]: solution for method, solution in point.solutions.items()}


def _provenance(problem: Problem, solution: Solution) -> dict[str, str]:
    made = solution.provenance
    return {
        "problem": f"{problem.name}: {problem.description}",
        "definition": problem.source,
        "Hessian": "mean cross-entropy over 500 training images, 50 of each digit, " + made["dtype"],
        "operator fingerprint (last step)": made["fingerprint"],
        "versions": ", ".join(f"{name} {number}" for name, number in made["versions"].items()),
        "threads": str(made["threads"]),
    }
