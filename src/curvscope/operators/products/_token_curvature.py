"""C of J' C J for cross-entropies over a large vocabulary, applied in chunks of tokens with the linear layer before it.

The network is cut one layer earlier: what it returns are the inputs of its last layer and that layer's parameters. The map
between their derivatives is L' C L, with L the derivative of the logits; see :mod:`.rules.token_losses`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from curvscope.operators.objective import Batch
from curvscope.operators.products._loss_hessian import label_weights
from curvscope.operators.rules import (
    PendingLogits,
    Scores,
    TokenHead,
    logsumexp_of,
    score_map,
    softmax_map,
)

Some = tuple[Tensor | None, Tensor | None, Tensor | None]


class TokenCurvature(ABC):
    """C for ``nn.CrossEntropyLoss`` of labels; made by :func:`token_curvature`.

    Args:
        criterion: with any options.
    """

    def __init__(self, criterion: nn.CrossEntropyLoss) -> None:
        self.criterion = criterion

    def serves(self, logits: Any, batch: Batch) -> bool:
        """Return whether a network's output stands for logits whose labels this criterion takes."""
        if not isinstance(logits, PendingLogits) or not logits.is_pending:
            return False
        target = batch[1]
        is_labels = isinstance(target, Tensor) and target.dtype is torch.int64 and target.shape == logits.inputs.shape[:-1]
        return is_labels and (logits.second or logits.ndim == 2)

    def head(self, tensors: tuple[Tensor, Tensor, Tensor], batch: Batch) -> TokenHead:
        """The last layer of flat inputs, with their labels."""
        return TokenHead(*tensors, batch[1].reshape(-1), self.criterion.ignore_index)

    @abstractmethod
    def __call__(self, head: TokenHead, batch: Batch, along: Some) -> Some:
        """L' C L times one direction of inputs, weight and bias; None for what does not vary."""


class TokenHessian(TokenCurvature):
    """The Hessian of the loss in the logits: Gauss-Newton matrices."""

    def __call__(self, head: TokenHead, batch: Batch, along: Some) -> Some:
        """See :class:`TokenCurvature`."""
        weights, divisor = label_weights(self.criterion, head.labels, len(head.weight), head.inputs)
        factor = weights / divisor if self.criterion.reduction == "mean" else weights
        return softmax_map(head, logsumexp_of(head), factor, along)


class TokenScores(TokenCurvature):
    """The second moment of the gradients in the logits for the labels of the data: empirical Fisher matrices."""

    def __call__(self, head: TokenHead, batch: Batch, along: Some) -> Some:
        """See :class:`TokenCurvature`."""
        criterion, count = self.criterion, len(head.weight)
        whole, divisor = label_weights(criterion, head.labels, count, head.inputs)
        smoothing = criterion.label_smoothing
        weights = head.inputs.new_ones(count) if criterion.weight is None else criterion.weight.to(head.inputs)
        counted = head.labels != head.ignored
        labels = torch.where(counted, head.labels, 0)
        own = torch.where(counted, weights[labels], 0.0) * (1 - smoothing)
        even = counted.to(whole.dtype) * (smoothing / count)
        # The score of a mean has the number of its terms in it: (g / T) (g / T)' T.
        factor = (1 / divisor if criterion.reduction == "mean" else torch.ones_like(divisor)).expand(len(labels))
        scores = Scores(labels[None], whole, own, even, weights if smoothing else None, factor)
        return score_map(head, logsumexp_of(head), scores, along)


class TokenDraws(TokenCurvature):
    """The second moment of the gradients in the logits for labels drawn from the model: Fisher matrices by Monte Carlo.

    The batch is (x, y, labels (M, n) and -1 where a token does not count, number of terms), see :mod:`._monte_carlo_fisher`.
    """

    def __call__(self, head: TokenHead, batch: Batch, along: Some) -> Some:
        """See :class:`TokenCurvature`."""
        drawn, terms = batch[2], batch[3]
        counted = (drawn[0] >= 0).to(head.inputs.dtype)
        factor = (1 / (len(drawn) * terms)).expand(len(counted))
        scores = Scores(drawn.clamp(min=0), counted, counted, torch.zeros_like(counted), None, factor)
        return score_map(head, logsumexp_of(head), scores, along)


def token_curvature(kind: type[TokenCurvature], criterion: Callable[..., Tensor]) -> TokenCurvature | None:
    """C in chunks, where the criterion is one that it is known for; of exactly this type, a subclass may be another loss."""
    if isinstance(criterion, nn.CrossEntropyLoss) and type(criterion) is nn.CrossEntropyLoss:
        return kind(criterion)
    return None
