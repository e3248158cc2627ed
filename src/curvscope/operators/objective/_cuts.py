"""Where the network of a Hugging Face model ends and its own loss begins: outputs, targets and the criterion between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from curvscope.operators.objective._batches import Batch

CRITERIA = {"regression": nn.MSELoss, "multi_label_classification": nn.BCEWithLogitsLoss}
"""By the ``problem_type`` of a sequence classifier's configuration; anything else is a cross-entropy."""

IGNORED = -100


@dataclass(frozen=True)
class Cut:
    """One form of a model's own loss.

    Attributes:
        criterion: ``(output, target) -> loss``.
        output: the tensor that the loss is a function of, from what the model returns and the batch.
        target: what else the criterion needs, from the batch and, where ``needs_output``, what the model returns.
        dropped: keys of the batch that the model is called without.
        needs_output: whether the target is known only after an evaluation of the model, such as a mask that it makes.
        mixes_samples: whether the loss of a sample depends on the others of its batch.
    """

    criterion: Callable[..., Tensor]
    output: Callable[[Any, Batch], Tensor]
    target: Callable[[Batch, Any], Any]
    dropped: tuple[str, ...] = ()
    needs_output: bool = False
    mixes_samples: bool = False


def cuts_for(model: nn.Module, batch: Batch, *, shifted: bool) -> list[Cut]:
    """The forms that a model's own loss on such batches may have; the one that reproduces its value is the right one."""
    if isinstance(batch.get("labels"), Tensor):
        return [_labels(model, shifted=shifted)]
    if "start_positions" in batch and "end_positions" in batch:
        return [_span()]
    if batch.get("return_loss"):
        return [
            Cut(criterion, lambda found, batch: found.logits_per_text, _diagonal, mixes_samples=True)
            for criterion in (_contrastive, _sigmoid_contrastive)
        ]
    if hasattr(model, "patchify") and "pixel_values" in batch:
        return [_reconstruction(model)]
    return []


def _labels(model: nn.Module, *, shifted: bool) -> Cut:
    """Logits against labels: classification, regression, token labels, causal and sequence-to-sequence language models."""
    config = getattr(model, "config", None)
    criterion = CRITERIA.get(str(getattr(config, "problem_type", None)), nn.CrossEntropyLoss)()
    regresses = isinstance(criterion, nn.MSELoss)

    def output(found: Any, batch: Batch) -> Tensor:
        """One row for each label."""
        logits: Tensor = found.logits[:, :-1] if shifted else found.logits
        if logits.ndim == 3:
            return logits.flatten(0, 1)
        return logits.view(target(batch, found).shape) if regresses else logits

    def target(batch: Batch, found: Any) -> Tensor:
        """The labels, flat where they are classes."""
        labels: Tensor = batch["labels"][:, 1:] if shifted else batch["labels"]
        return labels if labels.is_floating_point() else labels.flatten()

    # Encoder-decoders make the decoder's input from the labels; others would only compute the loss that is not used.
    dropped = () if getattr(config, "is_encoder_decoder", False) else ("labels",)
    return Cut(criterion, output, target, dropped)


def _span() -> Cut:
    """Question answering: the mean of the cross-entropies of two positions."""

    def target(batch: Batch, found: Any) -> Tensor:
        """Positions outside of the text are ignored."""
        places = torch.cat([batch["start_positions"].flatten(), batch["end_positions"].flatten()])
        length = batch["input_ids"].shape[-1]
        return torch.where((places >= 0) & (places < length), places, IGNORED)

    def output(found: Any, batch: Batch) -> Tensor:
        """Logits of the starts, then of the ends."""
        return torch.cat([found.start_logits, found.end_logits])

    keys = ("start_positions", "end_positions")
    return Cut(nn.CrossEntropyLoss(), output, target, keys)


def _reconstruction(model: Any) -> Cut:
    """Masked autoencoders: the mean squared error of the masked patches."""

    def target(batch: Batch, found: Any) -> tuple[Tensor, Tensor]:
        """The patches, scaled where the configuration says so, and which of them are masked."""
        patches = model.patchify(batch["pixel_values"])
        if getattr(model.config, "norm_pix_loss", False):
            patches = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()
        return patches, found.mask

    return Cut(_masked_squares, lambda found, batch: found.logits, target, needs_output=True)


def _masked_squares(output: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
    patches, mask = target
    return ((output - patches).square().mean(-1) * mask).sum() / mask.sum()


def _diagonal(batch: Batch, found: Any) -> Tensor:
    return torch.arange(len(batch["input_ids"]), device=batch["input_ids"].device)


def _contrastive(output: Tensor, target: Tensor) -> Tensor:
    """CLIP: which image belongs to a text, and which text to an image."""
    return (functional.cross_entropy(output, target) + functional.cross_entropy(output.T, target)) / 2


def _sigmoid_contrastive(output: Tensor, target: Tensor) -> Tensor:
    """SigLIP: every text with every image, as a binary choice."""
    signs = 2 * torch.eye(len(output), dtype=output.dtype, device=output.device) - 1
    return -functional.logsigmoid(signs * output).sum(-1).mean()
