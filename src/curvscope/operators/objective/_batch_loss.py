"""The loss of one batch at any values of the parameters, on a model that is left as it was."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import inf
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from curvscope.errors import InvalidArgument
from curvscope.operators._parameters import Parameters, leaves
from curvscope.operators.objective._batches import Batch, as_given, criterion_terms, few_samples, length, placed
from curvscope.operators.objective._evaluation import Evaluation
from curvscope.operators.objective._isolation import isolated
from curvscope.operators.objective._labels import label_terms, labels_of
from curvscope.operators.objective._losses import CallWithModel, dependent, plain_call
from curvscope.operators.objective._substitution import values_in_model
from curvscope.operators.objective._writes import without_assignments
from curvscope.operators.rules import materialized
from curvscope.system import TF32, TF32_EPS

Values = tuple[Tensor, ...]
STATISTICS = ("running_mean", "running_var")
"""Buffers of batch normalisation that its output depends on, with running statistics."""


class BatchLoss(ABC):
    """The loss of one batch as a function of the parameters, and how many terms it has.

    :class:`.Objective` sets the attributes, and sums over batches.

    Attributes:
        model: that is called; its own tensors take no part unless ``substitution`` is "in place".
        parameters: names and shapes of what varies.
        values: of them, copied.
        data: the batches.
        evaluation: the settings that evaluating this loss needs.
        substitution: how other values get into the model, see :mod:`.substitution`; None: not known yet.
        shifted: whether the model shifts token labels; None: not known yet.
        loss_rounding: machine epsilon of the coarsest arithmetic seen inside the loss; 0: not looked at yet.
        depends: whether the loss was seen to depend on the parameters.
    """

    model: nn.Module
    parameters: Parameters
    values: Values
    data: Iterable[Batch]
    device: torch.device
    dtype: torch.dtype
    precision: Literal["tf32"] | None
    has_criterion: bool
    sums: bool
    weight: Callable[[Batch], float] | None
    microbatch: int | None
    batchnorm: Literal["eval", "batch"]
    dropout: int | None
    noise: int | None
    substitution: Literal["exchanged", "in place"] | None
    evaluation: Evaluation
    shifted: bool | None
    loss_rounding: float
    depends: bool
    _loss: Callable[..., Tensor]
    _constants: dict[str, Tensor]
    _own: Values

    @property
    def criterion(self) -> Callable[..., Tensor]:
        """The loss as it is called: the criterion (output, target), where it is one."""
        return self._loss

    @property
    def copies(self) -> dict[str, Tensor]:
        """All tensors of the model as they were copied, by name: parameters, frozen parameters and buffers."""
        return {**self._constants, **dict(zip(self.parameters.names, self.values, strict=True))}

    @abstractmethod
    def batches(self) -> Iterator[tuple[Batch, float]]:
        """Every (micro-)batch that has loss terms, on the device and in the dtype of the objective, with its weight w_b."""

    def few_samples(self, batch: Batch, most: int = 4) -> Batch | None:
        """A few samples from all over a batch that :meth:`batches` gave; None where it cannot be cut, or these have no loss."""
        piece = few_samples(batch, most)
        return piece if piece is not None and self.terms(piece) else None

    def loss(self, values: Values, batch: Batch) -> Tensor:
        """The scalar loss of one batch, not weighted, at the given parameter tensors."""
        if not self.has_criterion:
            return self._call(values, self._loss, batch)
        with self.evaluation.rules():
            return self._loss(self.output(values, batch), batch[1])

    def loss_value(self, values: Values, batch: Batch) -> Tensor:
        """The same without a graph, also where the loss itself takes a gradient."""
        value: Tensor = self.evaluation.value(lambda: self.loss(leaves(values), batch))
        return value

    def output(self, values: Values, batch: Batch) -> Tensor:
        """f_theta(x) for a batch (x, y)."""
        return self._call(values, None, batch[0])

    def output_or_logits(self, values: Values, batch: Batch) -> Tensor:
        """The same; logits over a large vocabulary may be a :class:`.PendingLogits`, which are not computed."""
        with self.evaluation.rules():
            return self.output(values, batch)

    def output_value(self, values: Values, batch: Batch) -> Tensor:
        """The output without a graph, also where the model itself takes a gradient."""
        value: Tensor = self.evaluation.value(lambda: self.output(leaves(values), batch))
        return value

    def batch_gradient(self, batch: Batch) -> Tensor:
        """The (D,) gradient of the loss of one batch, not weighted; call it inside :meth:`isolated`."""
        return self.parameters.join(self.gradient_at(self.values, batch))

    def gradient_at(self, values: Values, batch: Batch, within: AbstractContextManager[None] | None = None) -> Values:
        """The gradient of the loss of one batch at other values, by tensor; call it inside :meth:`isolated`.

        Args:
            values: where.
            batch: of :meth:`batches`.
            within: what the loss alone is evaluated in.
        """
        with torch.enable_grad():
            inputs = self.leaves(values)
            with within or nullcontext():
                loss = dependent(self.loss(inputs, batch).reshape(()))
            return torch.autograd.grad(loss, inputs, materialize_grads=True)

    def terms(self, batch: Batch) -> float:
        """Number of loss terms n_b that the mean of this batch goes over (1 for a loss that sums; 0: nothing to measure)."""
        if self.weight is not None:
            terms = float(self.weight(as_given(batch)))
            if not 0 <= terms < inf:
                raise InvalidArgument(f"weight(batch) gave {terms}: expected the number of loss terms in the batch, at least 0")
        elif self.has_criterion:
            terms = criterion_terms(self._loss, batch)
        else:
            labels = labels_of(batch)
            terms = float(length(batch)) if labels is None else label_terms(labels, shifted=bool(self.shifted))
        return float(terms > 0) if self.sums else terms

    def isolated(self, *, evaluated: bool = True) -> AbstractContextManager[None]:
        """Inside, the model can be evaluated (if it is to be); on leaving, it and all global state are as they were."""
        modes = {"batch_statistics": self.batchnorm == "batch", "dropout": self.dropout is not None}
        found = isolated(self.model, self.device, **modes, tf32=self.precision == TF32, evaluated=evaluated)
        return _both(found, self.in_own_parameters()) if evaluated and self.substitution == "in place" else found

    @contextmanager
    def in_own_parameters(self) -> Iterator[Values]:
        """Inside, the model's own parameters hold the values and are what is differentiated; see :mod:`.substitution`."""
        before, self._own = self._own, ()
        try:
            with values_in_model(self.model, self.copies, self.parameters.names) as chosen:
                self._own = chosen
                yield chosen
        finally:
            self._own = before

    def leaves(self, values: Values) -> Values:
        """The values as what to differentiate with respect to: copies, or the model's own parameters that hold them then."""
        return self._filled(values) if self._own else leaves(values)

    @property
    def rounding(self) -> float:
        """Machine epsilon of the coarsest arithmetic in the loss: many models compute parts in float32 in any dtype."""
        return float(max(self.chosen_rounding, self.loss_rounding))

    @property
    def chosen_rounding(self) -> float:
        """Machine epsilon of the arithmetic that was asked for."""
        return TF32_EPS if self.precision == TF32 else torch.finfo(self.dtype).eps

    @property
    def arithmetic(self) -> str:
        """Name of the arithmetic of the loss: a dtype, or TF32."""
        return self.precision or str(self.dtype).removeprefix("torch.")

    def seed(self, number: int) -> None:
        """Before evaluating (micro-)batch ``number``: fix what is drawn there, where ``dropout`` or ``noise`` was asked for."""
        if self.noise is not None:
            random.seed(self.noise + number)
            np.random.seed((self.noise + number) % 2**32)  # noqa: NPY002 -- what models of other libraries draw from
        if self.draws:
            first = self.dropout if self.noise is None else self.noise
            assert first is not None, "draws says that one of them is there"
            torch.manual_seed(first + number)

    @property
    def draws(self) -> bool:
        """True if the loss of a batch also depends on fixed random numbers, which belong to its place in the data."""
        return self.dropout is not None or self.noise is not None

    @property
    def _buffer_names(self) -> set[str]:
        return {name for name, _ in self.model.named_buffers()}

    def _call(self, values: Values, function: Callable[..., Tensor] | None, argument: Any) -> Tensor:
        constants = self.evaluation.state(self._constants, self._buffer_names, values)
        tensors = {**constants, **dict(zip(self.parameters.names, values, strict=True))}
        if self.batchnorm == "batch":
            tensors = {name: t for name, t in tensors.items() if not name.endswith(STATISTICS)}
        argument = as_given(argument)
        with self.evaluation.rules():
            if self._own:
                self._filled(values)
                found = self.model(argument) if function is None else function(self.model, argument)
            elif function is None and not self.evaluation.looking:
                found = functional_call(self.model, tensors, (argument,))
            else:
                called = function or plain_call
                if self.evaluation.looking:
                    called = without_assignments(called, self.parameters.names, values)
                tensors = {f"model.{name}": tensor for name, tensor in tensors.items()}
                found = functional_call(CallWithModel(self.model, called), tensors, (argument,))
        if self.evaluation.looking:
            self.evaluation.note_writes(self._constants, constants)
        return found if self.evaluation.is_inside else materialized(found)

    def _filled(self, values: Values) -> Values:
        """The model's own parameters, which then hold these values."""
        for own, value in zip(self._own, values, strict=True):
            if torch._C._functorch.is_functorch_wrapped_tensor(value):
                raise RuntimeError("the model's own parameters cannot be differentiated by torch.func")
            if value is not own and not torch.equal(own.detach(), value.detach()):
                own.data.copy_(value.detach())
        return self._own

    def placed(self, tensor: Tensor) -> Tensor:
        """Return a tensor on the device and, if it is one of floating-point numbers, in the dtype of the objective."""
        return placed(tensor, self.device, self.dtype)


@contextmanager
def _both(first: AbstractContextManager[Any], second: AbstractContextManager[Any]) -> Iterator[None]:
    with first, second:
        yield
