"""Upper bounds for the rank of a matrix that its structure gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from curvscope.operators.objective import Objective


@dataclass(frozen=True)
class RankBound:
    """A matrix has at most this rank, so at least D - rank of its eigenvalues are zero.

    Attributes:
        rank: the bound.
        reason: where it comes from, in words.

    >>> RankBound(120, "30 x (5 - 1) free logits").rank
    120
    """

    rank: int
    reason: str


def output_shapes(objective: Objective) -> list[torch.Size]:
    """Return the shape of the network's output on each mini-batch. Cost: one evaluation of the network on all data."""
    shapes = []
    with objective.isolated(), torch.no_grad():
        for number, (batch, _) in enumerate(objective.batches()):
            objective.seed(number)
            shapes.append(objective.output_or_logits(objective.values, batch).shape)
    return shapes


def of_outputs(objective: Objective) -> RankBound:
    """Return the bound for J' C J with C the loss's Hessian: the outputs, less one a sample where a softmax is free of it."""
    shapes = output_shapes(objective)
    outputs = sum(shape.numel() for shape in shapes)
    if type(objective.criterion) is not nn.CrossEntropyLoss:
        return RankBound(outputs, f"{outputs} outputs")
    classes = shapes[0][1] if len(shapes[0]) > 1 else shapes[0][0]
    terms = outputs // classes
    return RankBound(terms * (classes - 1), f"N (C - 1) for N = {terms} softmax outputs of C = {classes} classes")


def of_samples(objective: Objective, *, draws: int = 1) -> RankBound:
    """Return the bound for a sum of one outer product for each sample (and draw)."""
    samples = sum(shape[0] for shape in output_shapes(objective))
    times = f" times {draws} draws" if draws > 1 else ""
    return RankBound(samples * draws, f"N = {samples} samples{times}")


def of_sum(bounds: list[RankBound | None]) -> RankBound | None:
    """Return the bound for a sum of matrices; None where one of them has none."""
    known = [bound for bound in bounds if bound is not None]
    if len(known) < len(bounds):
        return None
    return RankBound(sum(bound.rank for bound in known), " plus ".join(bound.reason for bound in known))
