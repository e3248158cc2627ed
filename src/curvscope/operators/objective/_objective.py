"""What is differentiated: L(theta) = sum_b w_b l(theta, batch_b), one fixed function of the parameters."""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import inf, isclose
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from curvscope.errors import CurvscopeError, InvalidArgument, InvalidType, NotDifferentiable
from curvscope.operators._code import code_digest, loss_digest, modules_of
from curvscope.operators._inference import out_of_inference
from curvscope.operators._layouts import equal
from curvscope.operators._parameters import (
    ParameterFilter,
    Parameters,
    check_dtype,
    check_finite,
    dtype_of,
    leaves,
    select,
    widest_dtype,
)
from curvscope.operators.fingerprint import fingerprint
from curvscope.operators.objective._arithmetic import CoarsestArithmetic
from curvscope.operators.objective._batches import (
    CRITERIA,
    Batch,
    as_batches,
    as_given,
    check_batch,
    criterion_terms,
    few_samples,
    is_pair,
    length,
    move,
    placed,
    split,
)
from curvscope.operators.objective._evaluation import Evaluation
from curvscope.operators.objective._isolation import isolated, say_running_statistics, trains_with_batch_statistics, unwrapped
from curvscope.operators.objective._labels import label_terms, labels_of, predicts_next_token
from curvscope.operators.objective._losses import (
    COUNTED,
    CallWithModel,
    MethodLoss,
    advice_on,
    check_reduction,
    checked_value,
    dependent,
    depends_on,
    independent,
    is_undecided,
    loss_hint,
    models_own_loss,
    name_of,
    named_criterion,
    own_reduction,
    plain_call,
    takes_model,
)
from curvscope.operators.objective._options import check_kinds_of, check_options
from curvscope.operators.objective._substitution import check_substitution, values_in_model
from curvscope.operators.objective._watch import Watch
from curvscope.operators.objective._weights import Sizes, ask_for_weights, is_mean_of_pieces, verified
from curvscope.operators.objective._writes import own_tensors_restored, refuse_written, without_assignments
from curvscope.system import TF32, TF32_EPS, check_precision

Values = tuple[Tensor, ...]
STATISTICS, COUNTER = ("running_mean", "running_var"), ("num_batches_tracked",)
RUNNING = STATISTICS + COUNTER
"""Buffers of batch normalisation; what the products of a model depend on are the first two, with running statistics."""

Loss = Callable[..., Tensor] | str


class SampleOptions(TypedDict, total=False):
    """Options of parameters, device, dtype and samples at a time; see :class:`Objective`."""

    params: ParameterFilter | None
    dtype: torch.dtype | str | None
    precision: Literal["tf32"] | None
    device: torch.device | str | None
    microbatch: int | None


class WeightOptions(SampleOptions, total=False):
    """The same, and how batches are weighted."""

    weight: Callable[[Batch], float] | None
    reduction: Literal["mean", "sum"] | None


class ObjectiveOptions(WeightOptions, total=False):
    """All options of an :class:`Objective`."""

    batchnorm: Literal["eval", "batch"] | None
    dropout: int | None
    noise: int | None
    weights: Literal["copy"] | None


class Objective:
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
            self.values: Values = tuple(self._place(p).clone() for p in chosen.values())
            constants = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
            self._constants = {name: self._place(t).clone() for name, t in constants.items() if name not in chosen}
        check_finite(self.parameters.names, self.values)
        if weights not in (None, "copy"):
            raise InvalidArgument(f"weights={weights!r}: choose 'copy', or None to be told when the model has changed")
        self.watch = Watch(self.model, self.parameters.names, silent=weights == "copy")
        self.shifted: bool | None = None
        self.weighs_right: bool | None = None
        self._inner, self._depends = 0.0, False
        self.evaluation = Evaluation(self.dtype)
        self._own: Values = ()
        if self.has_criterion and is_undecided(loss):
            self.has_criterion = not self._takes_model()
        with own_tensors_restored(self.model, {**self._constants, **dict(zip(chosen, self.values, strict=True))}):
            self._look(new=True)

    # --- the function ---------------------------------------------------------------------------------------------------

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

    def gradient(self) -> Tensor:
        """The (D,) gradient of L. Cost: one gradient a batch.

        Raises:
            NotDeterministic, CapturedParameter: see :func:`.substitution.check_substitution`.
        """
        check_substitution(self)
        with self.isolated():
            total = torch.zeros(self.parameters.size, dtype=self.dtype, device=self.device)
            for number, (batch, weight) in enumerate(self.batches()):
                self.seed(number)
                total.add_(self.batch_gradient(batch), alpha=weight)
        return total

    @property
    def criterion(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The criterion (output, target), where the loss is one."""
        return self._loss

    @property
    def is_models_own(self) -> bool:
        """True if the loss is the one that the model computes itself, ``loss="model"``."""
        return self._loss is models_own_loss

    @property
    def buffers(self) -> dict[str, Tensor]:
        """The model's buffers as they were copied: running statistics of BatchNorm layers, for one."""
        return {name: tensor for name, tensor in self._constants.items() if name in self._buffer_names}

    @property
    def _buffer_names(self) -> set[str]:
        return {name for name, _ in self.model.named_buffers()}

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
                    yield move(piece, self.device, self.dtype), terms / self._total
        if count != self.num_batches:
            raise InvalidArgument(
                f"data yielded {count} batches, {self.num_batches} the first time: an operator is one fixed matrix, "
                "pass data that always yields the same batches"
            )

    def few_samples(self, batch: Batch, most: int = 4) -> Batch | None:
        """A few samples from all over a batch that :meth:`batches` gave; None where it cannot be cut, or these have no loss."""
        piece = few_samples(batch, most)
        return piece if piece is not None and self.terms(piece) else None

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
            return other._place(theirs if equal(self._place(theirs), ours) else ours).clone()

        with out_of_inference(), torch.no_grad():
            other.values = tuple(there(*item) for item in zip(self.parameters.names, self.values, strict=True))
            other._constants = {name: there(name, tensor) for name, tensor in self._constants.items()}
        other._inner, other.evaluation = 0.0, Evaluation(other.dtype)
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
            self.values = tuple(self._place(present[name]).clone() for name in self.parameters.names)
            everything = {**present, **dict(self.model.named_buffers())}
            before, self._constants = self._constants, {name: self._place(everything[name]).clone() for name in self._constants}
        check_finite(self.parameters.names, self.values)
        self.watch.reset()
        self._look()
        unused = RUNNING if self.batchnorm == "batch" else COUNTER
        return all(equal(tensor, before[name]) for name, tensor in self._constants.items() if not name.endswith(unused))

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
                if name in present and not equal(self._place(present[name]), ours):
                    return True
        watch.settle()
        return False

    def isolated(self, *, evaluated: bool = True) -> AbstractContextManager[None]:
        """Inside, the model can be evaluated (if it is to be); on leaving, it and all global state are as they were."""
        modes = {"batch_statistics": self.batchnorm == "batch", "dropout": self.dropout is not None}
        found = isolated(self.model, self.device, **modes, tf32=self.precision == TF32, evaluated=evaluated)
        return _both(found, self.in_own_parameters()) if evaluated and self.substitution == "in place" else found

    @contextmanager
    def in_own_parameters(self) -> Iterator[Values]:
        """Inside, the model's own parameters hold the values and are what is differentiated; see :mod:`.substitution`."""
        before, self._own = self._own, ()
        tensors = {**self._constants, **dict(zip(self.parameters.names, self.values, strict=True))}
        try:
            with values_in_model(self.model, tensors, self.parameters.names) as chosen:
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
        return float(max(self.chosen_rounding, self._inner))

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
    def total_terms(self) -> float:
        """Loss terms of all batches, what the weights are divided by; 1 for a loss that sums."""
        return self._total

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

    # --- inside -----------------------------------------------------------------------------------------------------------

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
        return found

    def _filled(self, values: Values) -> Values:
        """The model's own parameters, which then hold these values."""
        for own, value in zip(self._own, values, strict=True):
            if torch._C._functorch.is_functorch_wrapped_tensor(value):
                raise RuntimeError("the model's own parameters cannot be differentiated by torch.func")
            if value is not own and not torch.equal(own.detach(), value.detach()):
                own.data.copy_(value.detach())
        return self._own

    def _place(self, tensor: Tensor) -> Tensor:
        return placed(tensor, self.device, self.dtype)

    def _understood(self, loss: Loss) -> tuple[Callable[..., Tensor], bool]:
        """The loss as a function, and whether it is a criterion."""
        if loss == "model":
            return models_own_loss, False
        if isinstance(loss, str) and loss.isidentifier() and callable(getattr(self.model, loss, None)):
            return MethodLoss(self.model, loss), False
        if not callable(loss) or isinstance(loss, type):
            raise InvalidType(
                f"loss is {loss!r}, expected a criterion (output, target), a function loss(model, batch), 'model', "
                "or the name of a method of the model, such as 'training_step'"
                f"{loss_hint(loss)}"
            )
        if inspect.isfunction(loss) and loss in CRITERIA:
            loss = CRITERIA[loss]()
        if isinstance(loss, nn.Module) and next(loss.buffers(), None) is not None:
            loss = copy.deepcopy(loss).to(self.device, self.dtype)
        return loss, not takes_model(loss)

    def _takes_model(self) -> bool:
        """Return whether a function of two arguments is a loss(model, batch), told by one evaluation on the first batch."""
        first = next(iter(self.data), None)
        if first is None or any(isinstance(leaf, np.ndarray) for leaf in tree_leaves(first)):
            return False
        with self.isolated(), torch.no_grad():
            batch = move(first, self.device, self.dtype)
            for with_model in (False, True):
                if not with_model and not is_pair(batch):
                    continue
                self.has_criterion = not with_model
                try:
                    found = self.loss(self.values, batch)
                except Exception:  # noqa: BLE001 -- the form that is right fails below with its own message, if it fails
                    continue
                finally:
                    self.has_criterion = True
                return with_model and isinstance(found, Tensor) and found.numel() == 1
        return False

    def _look(self, *, new: bool = False) -> None:
        """One pass over the data: batches, pieces of them, sum of weights, mean loss, digest. Finds what is wrong.

        Args:
            new: whether the model's own tensors are what was copied, so that differences tell which were written to.
        """
        count, pieces, total, weighted, digests = 0, 0, 0.0, 0.0, []
        sizes = Sizes()
        self.evaluation.looking = True
        with self.isolated(), torch.no_grad():
            for count, batch in enumerate(self.data, start=1):
                check_batch(batch, count, pairs=self.has_criterion)
                cut = []
                sizes.add(batch)
                for piece in split(batch, self.microbatch):
                    if self.weight is None and self.shifted is None and not self.has_criterion:
                        self.shifted = predicts_next_token(self.model, self._loss_here, piece)
                    moved, terms = move(piece, self.device, self.dtype), self.terms(piece)
                    cut.append(terms)
                    if self.draws:  # every piece has masks of its own
                        digests.append(fingerprint(moved, terms))
                    if terms:
                        self.seed(pieces)
                        weighted += terms * self._checked_loss(moved, count)
                        total, pieces = total + terms, pieces + 1
                if not self.draws:
                    digests.append(self._digest(batch, cut))
        self.evaluation.looking = False
        if new:
            self._refuse_written()
        if count == 0:
            raise InvalidArgument("data yielded no batch: curvature needs at least one")
        if not total > 0:
            raise InvalidArgument(f"the batches hold {total:g} loss terms together, expected more than 0")
        if not self._depends and not self._depends_in_place():
            raise NotDifferentiable(independent(self.parameters.names))
        self.num_batches, self.num_pieces, self._total = count, pieces, 1.0 if self.sums else total
        self.mean_loss, self._data_digest = weighted / self._total, fingerprint(digests)
        if self.weighs_right is None:
            self._check_weights(pieces, sizes)

    def _refuse_written(self) -> None:
        """Raise WrittenParameter where the copies and the model's own parameters, which were equal, no longer are."""
        own, projected = dict(self.model.named_parameters()), self.evaluation.projected
        copies = {**self._constants, **dict(zip(self.parameters.names, self.values, strict=True))}
        refuse_written(
            [
                name
                for name, tensor in own.items()
                if name in copies
                and copies[name].untyped_storage().data_ptr() not in projected
                and not equal(self._place(tensor), copies[name])
            ]
        )

    def _depends_in_place(self) -> bool:
        """Return whether the loss depends on the model's own parameters, where it does not on exchanged ones."""
        batch = move(next(iter(self.data)), self.device, self.dtype)
        try:
            with self.isolated(), self.in_own_parameters() as chosen, torch.enable_grad():
                return depends_on(self.loss(chosen, batch), chosen)
        except (RuntimeError, TypeError, ValueError, LookupError):
            return False

    def _check_weights(self, pieces: int, sizes: Sizes) -> None:
        """Verify that batches are weighted by what the loss averages over, on two of them; ask where that cannot be told.

        With dropout off and running statistics: they have no part in the weights, and would hide them.
        """
        if pieces < 2 or self.weight is not None or type(self._loss) in COUNTED:
            return
        limit = min(1e2 * self.rounding, 0.1)
        with isolated(self.model, self.device, batch_statistics=False, dropout=False), torch.enable_grad():
            self.weighs_right = verified(
                sizes, lambda batch: is_mean_of_pieces(self._loss_here, self.terms, batch, self.microbatch, limit)
            )
        if not self.sums:
            ask_for_weights(sizes, self.weighs_right)

    def _digest(self, batch: Batch, terms: list[float]) -> str:
        """Of a batch and its weight, whatever the pieces are that it is taken in, where these change nothing but rounding."""
        whole = self.terms(batch)
        additive = all(terms) if self.sums else isclose(sum(terms), whole, rel_tol=1e-6)
        return fingerprint(move(batch, torch.device("cpu"), self.dtype), whole, *(() if additive else terms))

    def _loss_and_arithmetic(self, batch: Batch) -> Tensor:
        """The loss at these parameters; the first one also tells what it is computed in, and whether it depends on them."""
        if self._inner and self._depends:
            return self.loss_value(self.values, batch)
        values = leaves(self.values)
        with torch.enable_grad(), CoarsestArithmetic() as arithmetic:
            loss = self.loss(values, batch)
        self._inner = max(self._inner, arithmetic.rounding or self.chosen_rounding)
        self._depends = self._depends or depends_on(loss, values)
        return loss.detach() if isinstance(loss, Tensor) else loss

    def _loss_here(self, batch: Batch) -> Tensor:
        self.seed(0)
        return self.loss_value(self.values, move(batch, self.device, self.dtype))

    def _checked_loss(self, batch: Batch, number: int) -> float:
        try:
            loss = self._loss_and_arithmetic(batch)
        except (RuntimeError, ValueError, LookupError) as error:
            if isinstance(error, CurvscopeError | torch.OutOfMemoryError | KeyError):
                raise
            told = f"the loss of batch {number} cannot be evaluated: {type(error).__name__}: {error}"
            raise InvalidArgument(f"{told}. {advice_on(str(error), self.dtype)}") from error
        except (TypeError, AttributeError) as error:
            if not self.has_criterion:
                raise
            raise InvalidArgument(
                f"batch {number} (x, y): {type(error).__name__}: {error}. Called were model(x) and, with what it returned, "
                f"{self.loss_name.split()[0]}(output, y): for anything else pass a function loss(model, batch), whose first "
                "parameter has the name model, or loss='model' for Hugging Face models and batches"
            ) from error
        return checked_value(loss, f"the loss of batch {number}")


@contextmanager
def _both(first: AbstractContextManager[Any], second: AbstractContextManager[Any]) -> Iterator[None]:
    with first, second:
        yield
