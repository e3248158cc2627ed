"""Hugging Face models with a loss of their own, seen as a network and a criterion: ``loss="model"``, cut at the outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isclose
from typing import Any

import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument
from curvscope.operators.objective._batch_loss import Values
from curvscope.operators.objective._batches import Batch, plain
from curvscope.operators.objective._cuts import cuts_for
from curvscope.operators.objective._objective import Objective


class LogitsObjective(Objective):
    """The objective of a Hugging Face model's own loss, as a criterion of its outputs.

    Language models (causal, masked, sequence to sequence), classification of sequences, tokens and images, regression, question
    answering, CLIP and SigLIP, masked autoencoders; see :mod:`.cuts`. Batches are pairs (the model's batch, the target); logits
    have the shape (samples or tokens, classes).

    Args:
        objective: built with ``loss="model"``.

    Cost: one evaluation of the data for each form of loss that may be meant, to see that it is the model's own.

    Raises:
        InvalidArgument: the model's own loss has none of the known forms.
    """

    def __init__(self, objective: Objective) -> None:
        self.__dict__.update(objective.__dict__)
        self.raw, self.has_criterion = objective, True
        with objective.isolated():
            first, _ = next(objective.batches())
        reasons = []
        for cut in cuts_for(objective.model, first, shifted=bool(objective.shifted)):
            self._cut, self._loss = cut, cut.criterion
            if not (reason := self._reason_against()):
                return
            reasons.append(reason)
        raise InvalidArgument(self._explanation("; ".join(reasons) or f"no form is known for batches with keys {list(first)}"))

    @property
    def mixes_samples(self) -> bool:
        """True if the loss of a sample depends on the others of its batch, as a contrastive one does."""
        return self._cut.mixes_samples

    def output(self, values: Values, batch: Batch) -> Tensor:
        """Return what the loss is a function of, one row for each label where it has labels."""
        return self._cut.output(self._returned(values, batch[0]), batch[0])

    def batches(self) -> Iterator[tuple[Batch, float]]:
        """Pairs (batch of the model, target) with their weights."""
        for number, (batch, weight) in enumerate(self.raw.batches()):
            yield self._pair(batch, number), weight

    def terms(self, batch: Batch) -> float:
        """As the model counts its labels."""
        return self.raw.terms(batch[0] if isinstance(batch, tuple) else batch)

    def few_samples(self, batch: Batch, most: int = 4) -> Batch | None:
        """See :meth:`.Objective.few_samples`."""
        piece = self.raw.few_samples(batch[0], most)
        return None if piece is None else self._pair(piece, 0)

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
        self._follow()
        return unchanged

    def exchange(self, data: Iterable[Batch]) -> None:
        """See :meth:`.Objective.exchange`."""
        self.raw.exchange(data)
        self._follow()

    def _follow(self) -> None:
        """Take over what the model's own loss has now."""
        own = {"_loss": self._loss, "_cut": self._cut, "has_criterion": True, "raw": self.raw}
        own |= {"substitution": self.substitution}
        self.__dict__.update(self.raw.__dict__ | own)

    def _pair(self, batch: Batch, number: int) -> tuple[Batch, Any]:
        """A batch of the model and its target."""
        found = None
        if self._cut.needs_output:
            self.seed(number)
            with torch.no_grad():
                found = self._returned(self.values, batch)
        return batch, self._cut.target(batch, found)

    def _returned(self, values: Values, batch: Batch) -> Any:
        return self._call(values, _called, {name: value for name, value in batch.items() if name not in self._cut.dropped})

    def _reason_against(self) -> str:
        """Return why the model's own loss is not of this form; empty if it is."""
        name = self.loss_name.split()[0]
        try:
            found = self._mean_loss()
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            return f"its outputs and targets do not fit a {name}: {error}"
        own = self.raw.mean_loss
        # Some models compute their loss in float32 whatever their dtype.
        if isclose(found, own, rel_tol=1e-2 if torch.finfo(self.dtype).bits < 32 else 1e-4, abs_tol=1e-6):
            return ""
        return f"its own loss is {own:.6g}, {name} of its outputs {found:.6g}"

    def _mean_loss(self) -> float:
        total = 0.0
        with self.isolated(), torch.no_grad():
            for number, (batch, weight) in enumerate(self.batches()):
                self.seed(number)
                total += weight * float(self.loss_value(self.values, batch))
        return total

    def _explanation(self, reason: str) -> str:
        return (
            f"{type(self.model).__name__} cannot be cut where its loss begins ({reason}): pass a criterion (output, target) "
            "and data of pairs (x, y) instead of loss='model', with a module that returns what the loss is computed from"
        )


def _called(model: nn.Module, inputs: dict[str, Any]) -> Any:
    return model(**inputs)
