"""What is differentiated: L(theta) = sum_b w_b l(theta, batch_b), one fixed function of the parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators._code import code_digest, loss_digest, modules_of
from curvscope.operators._inference import out_of_inference
from curvscope.operators._layouts import equal
from curvscope.operators._parameters import (
    ParameterFilter,
    Parameters,
    check_dtype,
    check_finite,
    dtype_of,
    select,
    widest_dtype,
)
from curvscope.operators.fingerprint import fingerprint
from curvscope.operators.objective._batch_loss import STATISTICS, BatchLoss, Values
from curvscope.operators.objective._batches import Batch, as_batches, move, split
from curvscope.operators.objective._captured import check_substitution
from curvscope.operators.objective._evaluation import Evaluation
from curvscope.operators.objective._first_pass import look_through, weights_are_right
from curvscope.operators.objective._isolation import say_running_statistics, trains_with_batch_statistics, unwrapped
from curvscope.operators.objective._loss_argument import Loss, is_loss_of_model, understood
from curvscope.operators.objective._losses import (
    check_reduction,
    is_undecided,
    models_own_loss,
    name_of,
    named_criterion,
    own_reduction,
)
from curvscope.operators.objective._options import check_kinds_of, check_options
from curvscope.operators.objective._watch import Watch
from curvscope.operators.objective._writes import own_tensors_restored
from curvscope.system import check_precision

COUNTER = ("num_batches_tracked",)
RUNNING = STATISTICS + COUNTER
"""Buffers of batch normalisation that a forward pass in training mode writes to."""


class Objective(BatchLoss):
    r"""The loss of a model on fixed data as a function of its parameters.

    .. math:: L(\theta) = \sum_b w_b\, \ell(f_\theta, \mathrm{batch}_b), \qquad w_b = n_b / \sum_c n_c,

    where :math:`\ell` is the mean over the :math:`n_b` loss terms of a batch, so that any batching of the same data gives the
    same function. A loss that sums (``reduction="sum"``) is summed instead (all weights 1).

    The parameters, and the buffers and constants beside them, are copied: training on does not change an objective, and is
    noticed at the next product of its operators (:meth:`move` follows the model). The model
    itself is only called (in evaluation mode, restored afterwards); its parameters, gradients, buffers, modes and the global
    random state stay as they are.

    Args:
        model: any module; one wrapped for data parallelism or compiled is unwrapped.
        loss: a criterion ``(output, target) -> scalar`` for data that yields ``(x, y)``; or, told by its first parameter being
            named ``model``, a function ``loss(model, batch) -> mean loss`` for any batches; the name of a method of the model
            that returns the loss of a batch, such as Lightning's ``"training_step"``; or ``"model"`` for Hugging Face models
            and batches: ``model(**batch).loss``.
        data: what can be iterated over again and again and yields the same batches: a list, a ``DataLoader``; or a table of
            the ``datasets`` library, whose rows are read in batches.
        params: which parameters vary; see :func:`.parameters.select`.
        dtype: of the computation; default: that of the parameters, the widest where they differ. bfloat16 and float16 round
            parameters, data and everything between; products are summed in float32.
        device: where to compute; default: that of the parameters.
        precision: ``"tf32"``: float32 numbers are multiplied in TF32 (10 bits of mantissa, sums in float32), on GPUs that have
            it; None: fully, whatever PyTorch's own settings are.
        weight: ``weight(batch)``, the number of loss terms; default: the terms that the criterion averages over (class
            weights and ``ignore_index`` counted in), the labels that count where a batch is a mapping with ``"labels"``,
            else the length of the batch's first tensor. Batches of weight 0 are passed over. Where batches differ in size and
            cutting one does not verify these numbers (graphs, for one), ``weight`` has to be given.
        microbatch: most samples at a time: batches are cut along the first axis, which saves memory and changes nothing else.
        reduction: ``"mean"`` or ``"sum"``, what ``loss`` does with its terms, for functions that do not say so themselves;
            default: the criterion's own, else the mean.
        batchnorm: ``"eval"`` for the running statistics, ``"batch"`` for those of each batch; None: the running ones, which the
            log says of a model in training mode, whose training minimises the other loss.
        dropout: None for off, or a seed: the masks of dropout layers are then drawn from it, the same for every product
            (functional dropout in modules of your own stays off).
        noise: None, and a model that draws random numbers in its forward pass is refused before the first number; or a seed:
            they are drawn from it, the same for every product (PyTorch's, NumPy's and Python's global generators).
        weights: None, and it is said once, at the next product, when the model's parameters have changed since they were
            copied; or ``"copy"``: the copy is meant, and nothing is said.

    Cost: construction evaluates the loss once on all data; twice more on a batch of token labels, to see whether the model
    shifts them, and on one or two of several batches, to see whether it averages over what they are weighted by;
    memory for one copy of the parameters.

    Raises:
        WrittenParameter: the model writes to a parameter in its forward pass; it is named.
        InvalidArgument: no data, an iterator that can be used only once, a loss that is not a scalar, a ``reduction`` that
            contradicts the criterion's, batches of unequal size whose weights cannot be verified.
        NotFinite: NaN or infinity in a parameter or in the loss of a batch, which is named. NotDifferentiable: the loss depends
            on none of the parameters, as after ``.detach()`` or under ``torch.no_grad()``.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> objective = Objective(model, nn.MSELoss(), [(torch.eye(2), torch.zeros(2, 1)), (torch.ones(1, 2), torch.ones(1, 1))])
    >>> objective.gradient().shape, objective.parameters.names
    (torch.Size([2]), ('weight',))
    """

    batchnorm_is_default = False

    def __init__(  # noqa: PLR0913 -- options of a loss, see ObjectiveOptions
        self,
        model: nn.Module,
        loss: Loss,
        data: Iterable[Batch],
        *,
        params: ParameterFilter = None,
        dtype: torch.dtype | str | None = None,
        precision: Literal["tf32"] | None = None,
        device: torch.device | str | None = None,
        weight: Callable[[Batch], float] | None = None,
        microbatch: int | None = None,
        reduction: Literal["mean", "sum"] | None = None,
        batchnorm: Literal["eval", "batch"] | None = None,
        dropout: int | None = None,
        noise: int | None = None,
        weights: Literal["copy"] | None = None,
    ) -> None:
        self.model = unwrapped(model)
        chosen = select(self.model, params)
        first = next(iter(chosen.values()))
        check_kinds_of(dtype, device, weight)
        if isinstance(dtype, str):
            dtype = dtype_of(dtype)
        self.dtype = dtype or widest_dtype(self.model)
        self.device = torch.device(device or first.device)
        check_dtype(self.dtype)
        if isinstance(data, Iterator):
            raise InvalidArgument("data can be iterated over only once: pass a list of batches or a DataLoader")
        if not isinstance(data, Iterable) and not hasattr(data, "__getitem__"):
            raise InvalidType(f"data is a {type(data).__name__}: pass a list of batches or a DataLoader")
        check_options(self.model, microbatch, reduction, batchnorm, dropout, noise)
        check_precision(precision, self.dtype, self.device)
        self.precision = precision
        self.data, self.weight, self.microbatch = data, weight, microbatch
        self.batchnorm, self.dropout, self.noise = batchnorm or "eval", dropout, noise
        self.batchnorm_is_default = batchnorm is None
        self.substitution: Literal["exchanged", "in place"] | None = None
        loss = named_criterion(loss)
        self._loss, self.has_criterion = self._understood(loss)
        self.data = as_batches(data, pairs=self.has_criterion)
        check_reduction(self._loss, reduction)
        self.sums = (reduction or own_reduction(self._loss)) == "sum"
        self.parameters = Parameters(tuple(chosen), tuple(p.shape for p in chosen.values()))
        with out_of_inference(), torch.no_grad():
            self.values: Values = tuple(self.placed(p).clone() for p in chosen.values())
            constants = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
            self._constants = {name: self.placed(t).clone() for name, t in constants.items() if name not in chosen}
        check_finite(self.parameters.names, self.values)
        if weights not in (None, "copy"):
            raise InvalidArgument(f"weights={weights!r}: choose 'copy', or None to be told when the model has changed")
        self.watch = Watch(self.model, self.parameters.names, silent=weights == "copy")
        self.shifted: bool | None = None
        self.weighs_right: bool | None = None
        self.loss_rounding, self.depends = 0.0, False
        self.evaluation = Evaluation(self.dtype)
        self._own: Values = ()
        if self.has_criterion and is_undecided(loss):
            self.has_criterion = not is_loss_of_model(self)
        with own_tensors_restored(self.model, self.copies):
            self._look(new=True)

    def gradient(self) -> Tensor:
        """The (D,) gradient of L. Cost: one gradient a batch.

        Raises:
            NotDeterministic, CapturedParameter: see :func:`.captured.check_substitution`.
        """
        check_substitution(self)
        with self.isolated():
            total = torch.zeros(self.parameters.size, dtype=self.dtype, device=self.device)
            for number, (batch, weight) in enumerate(self.batches()):
                self.seed(number)
                total.add_(self.batch_gradient(batch), alpha=weight)
        return total

    @property
    def is_models_own(self) -> bool:
        """True if the loss is the one that the model computes itself, ``loss="model"``."""
        return self._loss is models_own_loss

    @property
    def buffers(self) -> dict[str, Tensor]:
        """The model's buffers as they were copied: running statistics of BatchNorm layers, for one."""
        return {name: tensor for name, tensor in self._constants.items() if name in self._buffer_names}

    @property
    def constants(self) -> tuple[Tensor, ...]:
        """The model's buffers and frozen parameters as they were copied."""
        return tuple(self._constants.values())

    @property
    def loss_name(self) -> str:
        """Name of the loss, with its options."""
        return name_of(self._loss)

    def batches(self) -> Iterator[tuple[Batch, float]]:
        """Every (micro-)batch that has loss terms, on the device and in the dtype of the objective, with its weight w_b."""
        count = 0
        for batch in self.data:
            count += 1
            for piece in split(batch, self.microbatch):
                if terms := self.terms(piece):
                    yield move(piece, self.device, self.dtype), terms / self.total_terms
        if count != self.num_batches:
            raise InvalidArgument(
                f"data yielded {count} batches, {self.num_batches} the first time: an operator is one fixed matrix, "
                "pass data that always yields the same batches"
            )

    def like(self, data: Iterable[Batch], *, dtype: torch.dtype | None = None, microbatch: int | None = None) -> Objective:
        """The same loss, parameters and modes on other data, another dtype (in its own precision) or other pieces."""
        other = copy.copy(self)
        other.data, other.microbatch, other._own = data, microbatch, ()
        check_dtype(dtype or self.dtype)
        other.dtype, other.precision = (self.dtype, self.precision) if dtype is None else (dtype, None)
        other._loss, _ = other._understood(self._loss)
        present = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}

        def there(name: str, ours: Tensor) -> Tensor:
            """The model's own numbers, not rounded to ours, unless it has moved on since."""
            theirs = present.get(name, ours)
            return other.placed(theirs if equal(self.placed(theirs), ours) else ours).clone()

        with out_of_inference(), torch.no_grad():
            other.values = tuple(there(*item) for item in zip(self.parameters.names, self.values, strict=True))
            other._constants = {name: there(name, tensor) for name, tensor in self._constants.items()}
        other.loss_rounding, other.evaluation = 0.0, Evaluation(other.dtype)
        other._look()
        return other

    def move(self) -> bool:
        """Take the parameters, buffers and frozen parameters that the model has now; whether only the former have changed.

        Cost: one evaluation of the loss on all data.

        Raises:
            NotFinite: NaN or infinity in a parameter or in the loss.
        """
        present = dict(self.model.named_parameters())
        with out_of_inference(), torch.no_grad():
            self.values = tuple(self.placed(present[name]).clone() for name in self.parameters.names)
            everything = {**present, **dict(self.model.named_buffers())}
            before, self._constants = self._constants, {name: self.placed(everything[name]).clone() for name in self._constants}
        check_finite(self.parameters.names, self.values)
        self.watch.reset()
        self._look()
        unused = RUNNING if self.batchnorm == "batch" else COUNTER
        return all(equal(tensor, before[name]) for name, tensor in self._constants.items() if not name.endswith(unused))

    def exchange(self, data: Iterable[Batch]) -> None:
        """Go on with other data at the same parameters. Cost: one evaluation of the loss on them."""
        self.data = data
        self._look()

    def follow_training_mode(self) -> None:
        """Use the batches' statistics where nothing was chosen and the model is in training mode; before any product."""
        if self.batchnorm_is_default and self.microbatch is None and trains_with_batch_statistics(self.model):
            self.batchnorm, self.batchnorm_is_default = "batch", False
            self._look()

    def say_running_statistics(self) -> None:
        """Say once where a model in training mode is measured with running statistics that nobody chose."""
        if self.batchnorm_is_default:
            say_running_statistics(self.model)

    def has_moved(self) -> bool:
        """Return whether the model's parameters differ from the copies. Cost: versions and addresses; seldom the values."""
        watch = getattr(self, "watch", None)  # functions of tensors have no model
        if watch is None or not watch.changed():
            return False
        present = dict(self.model.named_parameters())
        with out_of_inference(), torch.no_grad():
            for name, ours in zip(self.parameters.names, self.values, strict=True):
                if name in present and not equal(self.placed(present[name]), ours):
                    return True
        watch.settle()
        return False

    def fingerprint(self, *, data: bool = True) -> str:
        """Digest of parameters, constants, data (unless told otherwise), loss, dtype, modes, and the code of network and loss.

        With the data the mean loss is one of its parts, to a few digits: what neither numbers nor code show may show there.
        """
        modes: list[Any] = [self.dtype, self.batchnorm, self.dropout, self.sums, *filter(None, (self.precision,))]
        modes += [] if self.noise is None else [f"noise {self.noise}"]
        digest = (self._data_digest, f"{self.mean_loss:.{2 if self.rounding < 1e-6 else 0}e}") if data else ""
        code = (modules_of(self.model), loss_digest(self._loss), code_digest(self.model))
        return fingerprint(self.parameters.names, self.values, self._constants, digest, self.loss_name, *modes, *code)

    def exact_parts(self) -> dict[str, str]:
        """Return what must be equal for two objectives to be the same function, each part by its name."""
        modes = {"batchnorm": self.batchnorm, "dropout": self.dropout, "sum": self.sums, "arithmetic": self.arithmetic}
        modes |= {} if self.noise is None else {"noise": self.noise}
        return {
            "parameters": fingerprint(self.parameters.names, self.values),
            "buffers and frozen parameters": fingerprint(self._constants),
            "data": self._data_digest,
            "loss": self.loss_name.strip(),
            **{name: str(value) for name, value in modes.items()},
        }

    def of_first_batch(self) -> Objective:
        """The same on the first batch alone that has loss terms; parameters are shared. Cost: one evaluation of its loss."""
        other = copy.copy(self)
        with self.isolated():
            other.data = [next(batch for batch in self.data if any(map(self.terms, split(batch, self.microbatch))))]
        other._look()
        return other

    def _understood(self, loss: Loss) -> tuple[Callable[..., Tensor], bool]:
        """The loss as a function, and whether it is a criterion."""
        return understood(loss, self.model, self.device, self.dtype)

    def _look(self, *, new: bool = False) -> None:
        """Go through the data once, see :func:`look_through`."""
        found = look_through(self, new=new)
        self.num_batches, self.num_pieces, self.total_terms = found.num_batches, found.num_pieces, found.total_terms
        self.mean_loss, self._data_digest = found.mean_loss, found.digest
        if self.weighs_right is None:
            self.weighs_right = weights_are_right(self, found)
