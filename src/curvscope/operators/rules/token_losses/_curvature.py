r"""Second derivatives of the losses of tokens in the logits, between the derivatives of the last layer, chunk by chunk.

With logits :math:`z = W h + b` and a symmetric map :math:`C` on those of each token, the maps here are
:math:`L^\top C L`, where :math:`L (\dot h, \dot W, \dot b) = W \dot h + \dot W h + \dot b`. C is one of

.. math:: C\,\dot z = u\, p \odot (\dot z - \langle p, \dot z\rangle), \qquad
    C\,\dot z = u \sum_m s_m \langle s_m, \dot z\rangle, \quad s_m = \alpha\, p - \beta\, e_{y_m} - \gamma\, c

the Hessian of a softmax cross-entropy, and the second moment of its gradients for M labels of each token, c the class weights
that smoothed labels add.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from curvscope.operators.rules.token_losses._chunks import Head, add_pulled_back, logits_along

Tangents = tuple[Tensor | None, Tensor | None, Tensor | None]
"""T directions of h, W and b, each (T, ...); None for what does not vary."""


class Scores(NamedTuple):
    """Gradients of the losses in the logits, for M labels of each token.

    Attributes:
        labels: (M, n) int64, all of them classes.
        whole: alpha, (n,). own: beta, (n,). even: gamma, (n,).
        classes: c, (V,), or None where gamma is 0.
        factor: u, (n,).
    """

    labels: Tensor
    whole: Tensor
    own: Tensor
    even: Tensor
    classes: Tensor | None
    factor: Tensor


def softmax_curvature(head: Head, logsumexp: Tensor, factor: Tensor, along: Tangents) -> Tangents:
    """Apply L' C L with the Hessian of the softmax, times ``factor`` (n,), to T directions."""
    into = empty_like(along, head)
    for chunk in head.chunks():
        p = head.probabilities(chunk, logsumexp)
        for t in range(count(along)):
            scaled = logits_along(head, chunk, t, along).mul_(p)
            scaled.addcmul_(p, scaled.sum(-1, keepdim=True), value=-1.0).mul_(factor[chunk].unsqueeze(-1))
            add_pulled_back(into, t, chunk, scaled, head)
    return into


def score_curvature(head: Head, logsumexp: Tensor, scores: Scores, along: Tangents) -> Tangents:
    """Apply L' C L with the second moment of the scores to T directions."""
    into = empty_like(along, head)
    for chunk in head.chunks():
        p = head.probabilities(chunk, logsumexp)
        labels = scores.labels[:, chunk].t()
        at_label = -scores.own[chunk].unsqueeze(-1)
        factor = scores.factor[chunk].unsqueeze(-1)
        common = p.mul_(scores.whole[chunk].unsqueeze(-1))
        if scores.classes is not None:
            common.addcmul_(scores.even[chunk].unsqueeze(-1), scores.classes, value=-1.0)
        for t in range(count(along)):
            moved = logits_along(head, chunk, t, along)
            # <s_m, z.> is the same for all labels but for the entry at the label; likewise the sum over m.
            slopes = ((common * moved).sum(-1, keepdim=True) + at_label * moved.gather(-1, labels)) * factor
            change = torch.mul(common, slopes.sum(-1, keepdim=True), out=moved)
            change.scatter_add_(-1, labels, at_label * slopes)
            add_pulled_back(into, t, chunk, change, head)
    return into


def drawn_labels(head: Head, logsumexp: Tensor, uniform: Tensor) -> Tensor:
    """The labels that numbers in [0, 1), (M, n), stand for under the softmax: (M, n) int64."""
    labels = torch.empty(uniform.shape, dtype=torch.int64, device=uniform.device)
    for chunk in head.chunks():
        below = head.probabilities(chunk, logsumexp).cumsum(-1)
        labels[:, chunk] = torch.searchsorted(below, uniform[:, chunk].t().contiguous().to(below.dtype)).t()
    return labels.clamp_(max=len(head.weight) - 1)


def count(along: Tangents) -> int:
    """T, the number of directions."""
    return next(len(tensor) for tensor in along if tensor is not None)


def empty_like(along: Tangents, head: Head) -> Tangents:
    """Zeros to add what is pulled back to; None for what does not vary."""
    h, w, b = (None if t is None else t.new_zeros(len(t), *own.shape) for t, own in zip(along, head[:3], strict=True))
    return h, w, b
