"""Losses without second derivatives in PyTorch, from operations that have them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """``functional.multi_margin_loss``."""
    if size_average is not None or reduce is not None:
        return NotImplemented
    scores, labels = input.reshape(-1, input.shape[-1]), target.reshape(-1, 1)
    gaps = (margin - scores.gather(1, labels) + scores).clamp(min=0) ** p
    if weight is not None:
        gaps = gaps * weight[labels]
    others = torch.arange(scores.shape[1], device=input.device) != labels
    terms = torch.where(others, gaps, torch.zeros_like(gaps)).sum(1) / scores.shape[1]
    return reduced(terms.reshape(target.shape), reduction)


def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any:
    """``functional.multilabel_margin_loss``; labels of a sample end at the first -1."""
    if size_average is not None or reduce is not None:
        return NotImplemented
    scores, labels = input.reshape(-1, input.shape[-1]), target.reshape(-1, input.shape[-1])
    counted = (labels >= 0).cummin(1).values
    safe = torch.where(counted, labels, torch.zeros_like(labels))
    own = torch.zeros_like(scores, dtype=torch.long).scatter_add(1, safe, counted.long()) > 0
    gaps = (1 - scores.gather(1, safe).unsqueeze(2) + scores.unsqueeze(1)).clamp(min=0)
    keep = counted.unsqueeze(2) & ~own.unsqueeze(1)
    terms = torch.where(keep, gaps, torch.zeros_like(gaps)).sum((1, 2)) / scores.shape[1]
    return reduced(terms if input.ndim > 1 else terms[0], reduction)


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """``functional.ctc_loss`` by its recursion over time in log space. Source: Graves et al. (2006).

    Cost: a few operations for each time step, for all samples together.
    """
    device = log_probs.device
    batched = log_probs.ndim == 3
    scores = log_probs if batched else log_probs.unsqueeze(1)
    steps, samples, _ = scores.shape
    frames = torch.as_tensor(input_lengths, device=device).reshape(-1)
    sizes = torch.as_tensor(target_lengths, device=device).reshape(-1)
    labels = _padded(targets, sizes, samples)
    states = torch.full((samples, 2 * labels.shape[1] + 1), blank, device=device, dtype=torch.long)
    states[:, 1::2] = labels
    # Log of zero that keeps derivatives finite: far below any probability that float64 holds.
    nothing = scores.new_tensor(-1e5 if scores.dtype == torch.float64 else -1e4)
    skips = torch.zeros_like(states, dtype=torch.bool)
    skips[:, 2:] = (states[:, 2:] != blank) & (states[:, 2:] != states[:, :-2])
    emitted = scores.gather(2, states.expand(steps, *states.shape))
    places = torch.arange(states.shape[1], device=device)
    alpha = torch.where(places < 2, emitted[0], nothing)
    for step in range(1, steps):
        before = torch.nn.functional.pad(alpha, (2, 0), value=float(nothing))
        ways = torch.stack([alpha, before[:, 1:-1], torch.where(skips, before[:, :-2], nothing)])
        moved = ways.logsumexp(0) + emitted[step]
        alpha = torch.where((step < frames)[:, None], moved, alpha)
    ends = torch.stack([2 * sizes, (2 * sizes - 1).clamp(min=0)], 1)
    last = alpha.gather(1, ends)
    last = torch.stack([last[:, 0], torch.where(sizes > 0, last[:, 1], nothing)], 1)
    terms = -last.logsumexp(1)
    impossible = terms > -0.5 * nothing
    terms = torch.where(impossible, torch.zeros_like(terms) if zero_infinity else torch.full_like(terms, torch.inf), terms)
    if reduction == "mean":
        return (terms / sizes.clamp(min=1)).mean()
    return terms.sum() if reduction == "sum" else terms if batched else terms[0]


def _padded(targets: Tensor, sizes: Tensor, samples: int) -> Tensor:
    """Labels with a row for each sample, whatever form they came in."""
    if targets.ndim == 2:
        return targets.long().clamp(min=0)
    if samples == 1:
        return targets.long().unsqueeze(0).clamp(min=0)
    starts = sizes.cumsum(0) - sizes
    columns = torch.arange(int(sizes.max()), device=targets.device)
    return targets.long()[(starts[:, None] + columns).clamp(max=len(targets) - 1)]


def reduced(terms: Tensor, reduction: str) -> Tensor:
    """The terms of a loss as its ``reduction`` says; PyTorch's error for another word."""
    match reduction:
        case "mean":
            return terms.mean()
        case "sum":
            return terms.sum()
        case "none":
            return terms.clone()
    raise ValueError(f"{reduction} is not a valid value for reduction")
