"""What is differentiated: L(theta) = sum_b w_b l(theta, batch_b), one fixed function of the parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from curvscope.errors import InvalidArgument, InvalidType, NotDifferentiable, NotFinite
from curvscope.operators.fingerprint import fingerprint
from curvscope.operators.parameters import ParameterFilter, Parameters, select

Batch = Any
Values = tuple[Tensor, ...]


class Objective:
    r"""The loss of a model on fixed data as a function of its parameters.

    .. math:: L(\theta) = \sum_b w_b\, \ell(f_\theta, \mathrm{batch}_b), \qquad w_b = n_b / \sum_c n_c,

    where :math:`\ell` is the mean over the :math:`n_b` loss terms of a batch, so that any batching of the same data gives the
    same function. A criterion with ``reduction="sum"`` is summed instead (all weights 1).

    The parameters, and the buffers and constants beside them, are copied: training on does not change an objective. The model
    itself is only called (in evaluation mode, restored afterwards); its parameters, gradients, buffers, modes and the global
    random state stay as they are.

    Args:
        model: any module.
        loss: a criterion ``(output, target) -> scalar`` for data that yields ``(x, y)``, or, told by its first parameter being
            named ``model``, a function ``loss(model, batch) -> mean loss`` for any batches.
        data: what can be iterated over again and again and yields the same batches: a list, a ``DataLoader``.
        params: which parameters vary; see :func:`.parameters.select`.
        dtype, device: where to compute; default: those of the parameters.
        weight: ``weight(batch)``, the number of loss terms; default: the terms that the criterion averages over (class weights
            and ``ignore_index`` counted in), for functions the length of the batch's first tensor.

    Cost: construction evaluates the loss once on all data; memory for one copy of the parameters.

    Raises:
        InvalidArgument: no data, an iterator that can be used only once, a loss that is not a scalar.
        NotFinite: NaN or infinity in a parameter or in the loss of a batch, which is named.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., Tensor],
        data: Iterable[Batch],
        *,
        params: ParameterFilter = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        weight: Callable[[Batch], float] | None = None,
    ) -> None:
        chosen = select(model, params)
        first = next(iter(chosen.values()))
        self.dtype = dtype or first.dtype
        self.device = torch.device(device or first.device)
        if not self.dtype.is_floating_point:
            raise InvalidArgument(f"dtype={self.dtype}: choose torch.float32 or torch.float64")
        if not callable(loss):
            raise InvalidType(f"loss is a {type(loss).__name__}, expected a criterion or a function loss(model, batch)")
        if isinstance(data, Iterator):
            raise InvalidArgument("data can be iterated over only once: pass a list of batches or a DataLoader")
        self.model, self.data, self._loss, self._weight = model, data, loss, weight
        self.parameters = Parameters(tuple(chosen), tuple(p.shape for p in chosen.values()))
        self.has_criterion = not _takes_model(loss)
        self._sums = getattr(loss, "reduction", "mean") == "sum"
        with torch.no_grad():
            self.values: Values = tuple(self._place(p).clone() for p in chosen.values())
            constants = {**dict(model.named_parameters()), **dict(model.named_buffers())}
            self._constants = {name: self._place(t).clone() for name, t in constants.items() if name not in chosen}
        self._check_parameters()
        self.num_batches, self._total, self.mean_loss, self._data_digest = self._survey()

    # --- the function ---------------------------------------------------------------------------------------------------

    def loss(self, values: Values, batch: Batch) -> Tensor:
        """The scalar loss of one batch, not weighted, at the given parameter tensors."""
        if self.has_criterion:
            return self.criterion(self.output(values, batch), batch)
        return self._call(values, self._loss, batch)

    def output(self, values: Values, batch: Batch) -> Tensor:
        """f_theta(x) for a batch (x, y)."""
        return self._call(values, None, batch[0])

    def criterion(self, output: Tensor, batch: Batch) -> Tensor:
        """The criterion of an output and the target of a batch (x, y)."""
        return self._loss(output, batch[1])

    def batches(self) -> Iterator[tuple[Batch, float]]:
        """Every batch that has loss terms, on the device and in the dtype of the objective, with its weight w_b."""
        count = 0
        for batch in self.data:
            count += 1
            if terms := self.terms(batch):
                yield self._move(batch), terms / self._total
        if count != self.num_batches:
            raise InvalidArgument(
                f"data yielded {count} batches, {self.num_batches} the first time: an operator is one fixed matrix, "
                "pass data that always yields the same batches"
            )

    def terms(self, batch: Batch) -> float:
        """Number of loss terms n_b that the mean of this batch goes over (1 for a criterion that sums)."""
        if self._sums:
            return 1.0
        if self._weight is not None:
            return float(self._weight(batch))
        return _criterion_terms(self._loss, batch) if self.has_criterion else _length(batch)

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Evaluation mode for the model; on leaving, each module's mode is as it was."""
        modes = {module: module.training for module in self.model.modules()}
        self.model.eval()
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training

    def fingerprint(self) -> str:
        """Digest of parameters, constants, data, loss and dtype."""
        return fingerprint(
            self.parameters.names, self.values, self._constants, self._data_digest, _name_of(self._loss), self.dtype
        )

    # --- inside -----------------------------------------------------------------------------------------------------------

    def _call(self, values: Values, function: Callable[..., Tensor] | None, argument: Any) -> Tensor:
        tensors = {**self._constants, **dict(zip(self.parameters.names, values, strict=True))}
        if function is None:
            return functional_call(self.model, tensors, (argument,))
        return functional_call(_Call(self.model, function), {f"model.{n}": t for n, t in tensors.items()}, (argument,))

    def _place(self, tensor: Tensor) -> Tensor:
        return tensor.detach().to(self.device, self.dtype if tensor.is_floating_point() else tensor.dtype)

    def _move(self, batch: Batch) -> Batch:
        match batch:
            case Tensor():
                return self._place(batch)
            case Mapping():
                return {key: self._move(value) for key, value in batch.items()}
            case tuple() | list():
                moved = [self._move(value) for value in batch]
                return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
        return batch

    def _check_parameters(self) -> None:
        for name, value in zip(self.parameters.names, self.values, strict=True):
            bad = int((~torch.isfinite(value)).sum())
            if bad:
                raise NotFinite(
                    f"parameter {name!r} has {bad} of {value.numel()} entries that are NaN or infinite: "
                    "load a checkpoint from before training diverged"
                )

    def _survey(self) -> tuple[int, float, float, str]:
        """One pass over the data: batches, sum of weights, mean loss, digest. All that can be wrong is found here."""
        count, total, weighted, digests = 0, 0.0, 0.0, []
        with self.untouched(), torch.no_grad():
            for count, batch in enumerate(self.data, start=1):
                moved = self._move(batch)
                self._check_batch(moved, count)
                terms = self.terms(batch)
                if terms:
                    total, weighted = total + terms, weighted + terms * self._checked_loss(moved, count)
                digests.append(fingerprint(moved, terms))
        if count == 0:
            raise InvalidArgument("data yielded no batch: curvature needs at least one")
        if self._sums:
            return count, 1.0, weighted, fingerprint(digests)
        if not total > 0:
            raise InvalidArgument(f"the batches hold {total:g} loss terms together, expected more than 0")
        return count, total, weighted / total, fingerprint(digests)

    def _check_batch(self, batch: Batch, number: int) -> None:
        if self.has_criterion and not (isinstance(batch, Sequence) and len(batch) == 2):
            raise InvalidArgument(
                f"batch {number} is a {type(batch).__name__}, but a criterion needs pairs (x, y): "
                "pass a function loss(model, batch) for other batches"
            )

    def _checked_loss(self, batch: Batch, number: int) -> float:
        loss = self.loss(self.values, batch)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise InvalidArgument(f"the loss of batch {number} is {got}, expected a scalar: use reduction='mean'")
        if not loss.is_floating_point():
            raise NotDifferentiable(f"the loss of batch {number} is {loss.dtype}: it must be a floating-point scalar")
        value = float(loss)
        if value != value or value in (float("inf"), float("-inf")):
            raise NotFinite(f"the loss of batch {number} is {value}: look at that batch's inputs and at the parameters")
        return value


class _Call(nn.Module):
    """``function(model, argument)`` as a module, so that functional_call can reach the model's parameters."""

    def __init__(self, model: nn.Module, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, argument: Any) -> Tensor:
        return self.function(self.model, argument)


def _takes_model(loss: Callable[..., Tensor]) -> bool:
    if isinstance(loss, nn.Module):
        return False
    try:
        names = list(inspect.signature(loss).parameters)
    except (TypeError, ValueError):
        return False
    return bool(names) and names[0] in ("model", "net", "network", "module")


def _name_of(loss: Callable[..., Tensor]) -> str:
    if isinstance(loss, nn.Module):
        return f"{type(loss).__qualname__} {loss.extra_repr()} {getattr(loss, 'reduction', '')}"
    return getattr(loss, "__qualname__", type(loss).__qualname__)


def _criterion_terms(criterion: Callable[..., Tensor], batch: Batch) -> float:
    """What the criterion's mean divides by."""
    target = batch[1]
    if isinstance(criterion, nn.CrossEntropyLoss | nn.NLLLoss) and not target.is_floating_point():
        counted = target[target != criterion.ignore_index]
        if criterion.weight is None:
            return float(counted.numel())
        return float(criterion.weight.detach()[counted.to(criterion.weight.device)].sum())
    return _length(batch)


def _length(batch: Batch) -> float:
    """Length of the first tensor found in a batch."""
    match batch:
        case Tensor():
            return float(batch.shape[0]) if batch.ndim else 1.0
        case Mapping():
            items: Iterable[Any] = batch.values()
        case tuple() | list():
            items = batch
        case _:
            items = ()
    for item in items:
        if isinstance(item, Tensor | Mapping | tuple | list):
            return _length(item)
    raise InvalidArgument(f"cannot count the loss terms of a {type(batch).__name__}: pass weight=lambda batch: ...")
