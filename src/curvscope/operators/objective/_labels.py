"""Labels of Hugging Face batches: which of them have a loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from curvscope.operators.objective._batches import Batch, plain

IGNORED_LABEL = -100
"""Label of tokens without a loss, as PyTorch and Hugging Face have it."""


def label_terms(labels: Tensor, *, shifted: bool) -> float:
    """Number of labels that have a loss; ``shifted`` when the first of each sequence is never predicted."""
    if labels.is_floating_point():
        return float(labels.numel())
    counted = labels[..., 1:] if shifted and labels.ndim > 1 else labels
    return float((counted != IGNORED_LABEL).sum())


def labels_of(batch: Batch) -> Tensor | None:
    """The labels of a batch that is a mapping."""
    batch = plain(batch)
    labels = batch.get("labels") if isinstance(batch, dict) else None
    return labels if isinstance(labels, Tensor) else None


def predicts_next_token(model: nn.Module, loss: Callable[[Batch], Tensor], batch: Batch) -> bool | None:
    """Return whether the logits of each token are compared with the label of the next, so that first labels have no loss.

    Told by the loss itself, where it can be evaluated: with a label at the first place of each sequence alone, and with none
    at all, it is the same then. A model's name tells less: some whose name ends in ForCausalLM do not shift, and a class
    derived from one may have any name. None: this batch does not tell.

    Cost: two evaluations of the loss of the batch.
    """
    labels = labels_of(batch)
    if labels is None or labels.ndim != 2 or labels.is_floating_point() or not bool((labels != IGNORED_LABEL).any()):
        return None
    none = torch.full_like(labels, IGNORED_LABEL)
    first = none.clone()
    first[:, 0] = labels[labels != IGNORED_LABEL][0]
    try:
        found, expected = (float(loss({**plain(batch), "labels": some})) for some in (first, none))
    except (RuntimeError, TypeError, ValueError, IndexError):  # a loss that wants more labels
        return any(kind.__name__.endswith(("ForCausalLM", "LMHeadModel")) for kind in type(model).__mro__)
    return found == expected or (found != found and expected != expected)
