"""Directional derivatives of the losses of single samples: what their gradients have along given vectors."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.operators.objective import COUNTED, Batch, Objective, check_substitution, dependent, is_pair, move, split
from curvscope.operators.products import FlatOutputs


def check_samples(objective: Objective) -> None:
    """Raise InvalidArgument where the loss of a sample depends on the others in its batch."""
    if getattr(objective, "mixes_samples", False) or objective.batchnorm == "batch":
        raise InvalidArgument(
            "the loss of a sample depends on the others in its batch (batch statistics, or a loss that compares samples): "
            "scores of single samples need a network in evaluation mode and a loss that is a mean over samples"
        )


def sample_slopes(objective: Objective, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Return g_i' x for the loss of every sample i and every direction x, and the number of loss terms of each sample.

    The loss of a sample is what the objective gives for it alone: the mean of its terms, for losses that average.

    Args:
        objective: whose samples do not depend on one another.
        directions: X, (D, t).

    Returns:
        (n, t) and (n,), float64 on the CPU, in the order of the data; 0 for samples without a loss term.

    Cost: for criteria of PyTorch a forward and about 2 t + 1 backward passes over the data, no gradient of a single sample;
        for others n gradients, one sample at a time.
    """
    check_samples(objective)
    check_substitution(objective)
    directions = directions.to(objective.device, objective.dtype)
    slopes, terms = [], []
    with objective.isolated():
        for number, batch in enumerate(placed(objective)):
            objective.seed(number)
            pieces = list(split(batch, 1))
            counts = torch.tensor([float(objective.terms(piece)) for piece in pieces], dtype=torch.float64, device="cpu")
            together = objective.has_criterion and isinstance(objective.criterion, COUNTED) and is_pair(batch)
            if together:
                found = _together(objective, batch, directions)
                found = found if objective.sums else found / counts.clamp(min=1e-300)[:, None]
            else:
                found = torch.stack([_alone(objective, piece, directions) for piece in pieces])
            slopes.append(torch.where(counts[:, None] > 0, found, 0.0))
            terms.append(counts)
    return torch.cat(slopes), torch.cat(terms)


def placed(objective: Objective) -> Iterator[Batch]:
    """Every batch of an objective where it computes, those without a loss term among them."""
    for batch in objective.data:
        for piece in split(batch, objective.microbatch):
            yield move(piece, objective.device, objective.dtype)


def _together(objective: Objective, batch: Batch, directions: Tensor) -> Tensor:
    """Derivatives of the sums of terms of all samples in a batch: the slopes of the criterion, times those of the outputs."""
    outputs = FlatOutputs()
    with torch.enable_grad():
        values = objective.leaves(objective.values)
        flat = dependent(outputs.flat(objective.output(values, batch)))
        outputs.check_samples(flat)
        leaf = flat.detach().requires_grad_()
        (slope,) = torch.autograd.grad(outputs.criterion(objective.criterion)(leaf, batch[1]), leaf)
        seed = torch.zeros_like(flat, requires_grad=True)
        pulled = torch.autograd.grad(flat, values, seed, create_graph=True, materialize_grads=True)
        joined = objective.parameters.join(pulled)
        moved = [torch.autograd.grad(joined, seed, column, retain_graph=True)[0] for column in directions.T]
    divisor = 1.0 if objective.sums else float(objective.terms(batch))
    columns = [(divisor * slope.double() * tangent.double()).reshape(len(flat), -1).sum(dim=1).cpu() for tangent in moved]
    return torch.stack(columns, dim=1)


def _alone(objective: Objective, piece: Batch, directions: Tensor) -> Tensor:
    """The gradient of one sample's loss, along all directions."""
    if not objective.terms(piece):
        return torch.zeros(directions.shape[1], dtype=torch.float64, device="cpu")
    return (directions.double().T @ objective.batch_gradient(piece).double()).cpu()
