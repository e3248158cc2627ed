"""Hugging Face models with labels, seen as a network and a criterion: what ``loss="model"`` computes, cut at the logits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isclose
from typing import Any

import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument
from curvscope.operators.batches import Batch, plain
from curvscope.operators.objective import Objective, Values

CRITERIA = {"regression": nn.MSELoss, "multi_label_classification": nn.BCEWithLogitsLoss}
"""By the ``problem_type`` of a sequence classifier's configuration; anything else is a cross-entropy."""


class LogitsObjective(Objective):
    """The objective of a Hugging Face model's own loss, as a criterion of its logits.

    Causal language models (labels shifted by one), masked ones, token and sequence classification. Batches are pairs
    (the model's batch, the flattened target); outputs are logits of shape (samples or tokens, classes).

    Args:
        objective: built with ``loss="model"``.

    Cost: one evaluation of the data, to see that the criterion of the logits is the model's own loss.

    Raises:
        InvalidArgument: the model has no logits, or its own loss is another function of them.
    """

    def __init__(self, objective: Objective) -> None:
        self.__dict__.update(objective.__dict__)
        self.raw = objective
        problem = getattr(getattr(objective.model, "config", None), "problem_type", None)
        self._loss, self.has_criterion = CRITERIA.get(problem, nn.CrossEntropyLoss)(), True
        try:
            found = self._mean_loss()
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise InvalidArgument(
                self._explanation(f"its logits and labels do not fit a {self.loss_name.strip()}: {error}")
            ) from error
        # Some models compute their loss in float32 whatever their dtype.
        if not isclose(found, objective.mean_loss, rel_tol=1e-2 if torch.finfo(self.dtype).bits < 32 else 1e-4, abs_tol=1e-6):
            raise InvalidArgument(
                self._explanation(
                    f"its own loss is {objective.mean_loss:.6g}, {self.loss_name.strip()} of its logits {found:.6g}"
                )
            )

    def output(self, values: Values, batch: Batch) -> Tensor:
        """The logits that a label belongs to, one row each."""
        inputs = {name: value for name, value in batch[0].items() if name != "labels"}
        logits = self._call(values, _logits, inputs)
        if self.shifted:
            logits = logits[:, :-1]
        return logits.flatten(0, 1) if logits.ndim == 3 else logits.view(batch[1].shape) if self._regresses else logits

    def batches(self) -> Iterator[tuple[Batch, float]]:
        """Pairs (batch of the model, target) with their weights."""
        for batch, weight in self.raw.batches():
            yield (batch, self._target(batch["labels"])), weight

    def terms(self, batch: Batch) -> float:
        """As the model counts its labels."""
        return self.raw.terms(batch[0] if isinstance(batch, tuple) else batch)

    def few_samples(self, batch: Batch) -> Batch | None:
        """See :meth:`.Objective.few_samples`."""
        piece = self.raw.few_samples(batch[0])
        return None if piece is None else (piece, self._target(piece["labels"]))

    def like(
        self, data: Iterable[Batch], *, dtype: torch.dtype | None = None, microbatch: int | None = None
    ) -> LogitsObjective:
        """The same on other data, which may be pairs of ours."""
        batches = [batch[0] if isinstance(batch, tuple) else plain(batch) for batch in data]
        return LogitsObjective(self.raw.like(batches, dtype=dtype, microbatch=microbatch))

    def of_first_batch(self) -> LogitsObjective:
        """See :meth:`.Objective.of_first_batch`."""
        return LogitsObjective(self.raw.of_first_batch())

    def move(self) -> bool:
        """See :meth:`.Objective.move`."""
        unchanged = self.raw.move()
        own = {"_loss": self._loss, "has_criterion": True, "raw": self.raw, "substitution": self.substitution}
        self.__dict__.update(self.raw.__dict__ | own)
        return unchanged

    @property
    def _regresses(self) -> bool:
        return isinstance(self._loss, nn.MSELoss)

    def _target(self, labels: Tensor) -> Tensor:
        if self.shifted:
            labels = labels[:, 1:]
        return labels if labels.is_floating_point() else labels.flatten()

    def _mean_loss(self) -> float:
        total = 0.0
        with self.isolated(), torch.no_grad():
            for number, (batch, weight) in enumerate(self.batches()):
                self.seed(number)
                total += weight * float(self.loss_value(self.values, batch))
        return total

    def _explanation(self, reason: str) -> str:
        return (
            f"{type(self.model).__name__} cannot be cut at its logits ({reason}): pass a criterion (output, target) and data "
            "of pairs (x, y) instead of loss='model', with a module whose output is the logits"
        )


def _logits(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
    return model(**inputs).logits
