"""What the studies read off the eigenpairs of a checkpoint: overlaps with masks, null models, gradient, layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from curvscope.certificates import Certificate
from curvscope.errors import InvalidArgument
from curvscope.operators import CurvatureOperator
from curvscope.problems import Problem
from curvscope.solvers import Solution
from curvscope.subspaces import (
    best_overlap,
    gradient_fraction,
    mask_null,
    masks,
    overlap,
    participation_ratio,
    space_layer_shares,
)
from curvscope.training import evaluate


def read_off(solution: Solution, H: CurvatureOperator, model: nn.Module, k: int, *, random_masks: int) -> dict[str, Any]:
    """Plain numbers for k' = 1, ..., k.

    Args:
        solution: with a certificate, of at least k pairs.
        H: the operator; gives loss and gradient.
        model: at the same parameters.
        k: how far.
        random_masks: how many of them to sample.
    """
    ranking = masks.by_magnitude(model)
    curve = overlap(solution, ranking)
    random = torch.stack(
        [overlap(solution.eigenvectors, masks.random(ranking.size, seed=seed)).value[:k] for seed in range(random_masks)]
    )
    nulls = {"uniform": mask_null(solution, ranking), "layered": mask_null(solution, ranking, layers=model)}
    gradient = H.gradient()
    return {
        "curvature_loss": H.objective.mean_loss,
        "overlap": {"value": _list(curve.value, k), "lower": _list(curve.lower, k), "upper": _list(curve.upper, k)},
        "layerwise": _list(overlap(solution.eigenvectors, masks.layerwise_magnitude(model)).value, k),
        "snip": _list(overlap(solution.eigenvectors, masks.snip(model, gradient)).value, k),
        "best": _list(best_overlap(solution).value, k),
        "random": {
            "mean": random.mean(0).tolist(),
            "low": random.min(0).values.tolist(),
            "high": random.max(0).values.tolist(),
        },
        **{f"null_{name}": {"mean": _list(null.mean, k), "std": _list(null.std, k)} for name, null in nulls.items()},
        "gradient_fraction": _list(gradient_fraction(gradient.to(torch.float64), solution).value, k),
        "participation_ratio": _list(participation_ratio(solution), k),
        "layer_shares": {name: _list(share, k) for name, share in space_layer_shares(solution, model).items()},
        "size": ranking.size,
    }


def _list(values: Tensor | None, k: int) -> list[float]:
    return [] if values is None else values[:k].tolist()


def certificate_of(solution: Solution) -> Certificate:
    """Return the certificate of a solution.

    Raises:
        InvalidArgument: it has none.
    """
    if solution.certificate is None:
        raise InvalidArgument("the solution has no certificate: pass it to curvscope.certify first")
    return solution.certificate


def facts(solution: Solution, k: int) -> dict[str, Any]:
    """Values, residuals and what is proven, of the k first pairs."""
    return {
        "eigenvalues": solution.eigenvalues[:k].tolist(),
        "worst_relative_residual": float(solution.relative_residuals[:k].max()),
        "complete": certificate_of(solution).complete,
        "failure": certificate_of(solution).tail.failure,
        "products": solution.cost.products + solution.cost.certificate_products,
        "seconds": solution.cost.seconds,
        "status": solution.status.code,
    }


def loss_and_accuracy(problem: Problem, model: nn.Module) -> dict[str, float]:
    """On all test samples."""
    loss, accuracy = evaluate(problem, model)
    return {"test_loss": loss, "test_accuracy": accuracy}
