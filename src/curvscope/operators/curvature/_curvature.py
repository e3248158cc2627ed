"""Hessian and generalised Gauss-Newton matrix of an objective, as operators."""

from __future__ import annotations

import copy
import logging
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypedDict, TypeVar, Unpack, cast, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators._algebra import Arithmetic, Composable, Sum
from curvscope.operators._identity import of_objective
from curvscope.operators._parameters import Parameters
from curvscope.operators._rank import RankBound, of_outputs
from curvscope.operators.curvature._copies import Copies
from curvscope.operators.fingerprint import fingerprint
from curvscope.operators.objective import (
    FunctionObjective,
    LogitsObjective,
    Loss,
    Objective,
    ObjectiveOptions,
    WeightOptions,
    is_function,
)
from curvscope.operators.products import (
    CLOSED_FORMS,
    BatchMap,
    Engine,
    FlatOutputs,
    HessianMap,
    SandwichMap,
    Verdict,
    loss_hessian,
    loss_slope,
)
from curvscope.system import checked, integer, unknown_argument

log = logging.getLogger(__name__)


class ProductOptions(TypedDict, total=False):
    """Options of how products are computed; the matrix does not depend on them.

    strategy: "auto" (double backward until tracing pays, then what is fastest, remembered; in long work at once), or "split",
    "split_vmap", "linearize", "linearize_vmap", "double_backward". width: vectors at a time; None: chosen. memory: bytes that
    products may use; None: half of what is free. accumulate: dtype of the columns and of the sum over mini-batches; default:
    the objective's, float32 for half-precision ones.
    """

    strategy: Literal["auto", "split", "split_vmap", "linearize", "linearize_vmap", "double_backward"] | str
    width: int | None
    memory: int | None
    accumulate: torch.dtype | None


class CurvatureOperator(Copies, Composable):
    """A symmetric D x D matrix that is a weighted sum over mini-batches.

    Outer loop mini-batches, inner loop groups of vectors: each batch is linearised once for the whole block.

    Args:
        objective: the loss and its data.
        batch_map: the matrix of one mini-batch.
        options: see :class:`ProductOptions`.

    Attributes:
        strategy_report: after a product: the strategy in use, its width, what was tried and skipped, what is kept.
    """

    hermitian = True
    is_mean_over_data = True
    objective: Objective

    def __init__(self, objective: Objective, batch_map: BatchMap, **options: Unpack[ProductOptions]) -> None:
        objective.say_running_statistics()
        self.objective = objective
        self.shape = (objective.parameters.size, objective.parameters.size)
        narrow = torch.float32 if torch.finfo(objective.dtype).bits < 32 else objective.dtype
        accumulate = options.get("accumulate")
        if accumulate is not None and not (isinstance(accumulate, torch.dtype) and accumulate.is_floating_point):
            raise InvalidArgument(f"accumulate={accumulate!r}: choose torch.float32 or torch.float64")
        self.dtype, self.device = narrow if accumulate is None else accumulate, objective.device
        owner = weakref.ref(self)  # a circle would keep the parameters' copies until the garbage collector runs
        batch_map.on = lambda other: None if (operator := owner()) is None else operator.on(other)._engine.map
        self._new_engine = partial(
            Engine,
            batch_map,
            strategy=options.get("strategy", "auto"),
            width=options.get("width"),
            memory=options.get("memory"),
            accumulate=self.dtype,
        )
        self._engine = self._new_engine()

    def move(self) -> None:
        """Go on to the parameters that the model has now: from here on this is another matrix, with another fingerprint.

        For following a training run: what was traced is used again, unless buffers or frozen parameters have changed.

        Cost: one evaluation of the loss on all data.

        >>> model, data = nn.Linear(3, 1), [(torch.eye(3), torch.zeros(3, 1))]
        >>> H, before = hessian(model, nn.L1Loss(), data), model.weight.clone()
        >>> with torch.no_grad():
        ...     _ = model.weight.add_(1)
        >>> torch.equal(H.values()[:3], before[0]), H.move(), torch.equal(H.values()[:3], model.weight[0])
        (True, None, True)
        """
        if self.objective.move():
            self._engine.forget()
        else:
            self.batch_map.verdict = None
            self._engine = self._new_engine()
        for name in ("fingerprint", "identity"):
            self.__dict__.pop(name, None)

    @property
    def parameters(self) -> Parameters:
        """Names, shapes and places of the D parameters; ``flatten`` and ``unflatten``."""
        return self.objective.parameters

    def values(self) -> Tensor:
        """The (D,) parameters at which the curvature is measured."""
        return self.parameters.join(self.objective.values)

    def gradient(self) -> Tensor:
        """The (D,) gradient of the mean loss at these parameters, on the operator's data. Cost: one gradient a batch."""
        return self.objective.gradient()

    def loss(self) -> float:
        """The mean loss at these parameters, on the operator's data, as evaluated when the operator was made. Cost: none."""
        return self.objective.mean_loss

    @property
    def not_finite_advice(self) -> str:
        """Advice for NaN or infinity in a product."""
        advice = "the loss is not twice differentiable at these parameters, or overflows"
        return advice if self.dtype == torch.float64 else f"{advice}; try dtype=torch.float64"

    @property
    def rounding(self) -> float:
        """Machine epsilon of the arithmetic that products are computed in: coarse for TF32, bfloat16 and float16."""
        return self.objective.rounding

    def on(self, objective: Objective) -> CurvatureOperator:
        """The matrix of the same kind of another objective."""
        make: Callable[[Objective], CurvatureOperator] = type(self)  # its batch map is made from the objective
        return make(objective)

    def exactly(self) -> CurvatureOperator | None:
        """This matrix with products in full float32, what TF32, bfloat16 or float16 ones are compared with; None: it is that.

        At the model's own parameters where ours are these, rounded. Cost: one evaluation of the loss on all data; memory for
        one more copy of the parameters.
        """
        if self.objective.chosen_rounding <= torch.finfo(torch.float32).eps:
            return None
        return self.in_dtype(torch.float32)

    def in_dtype(self, dtype: torch.dtype) -> CurvatureOperator:
        """This matrix with all of the computation in another dtype, such as float64 for :func:`curvscope.certify`.

        At the model's own parameters where ours are these, rounded. Cost: one evaluation of the loss on all data; memory for
        one more copy of the parameters.

        >>> hessian(nn.Linear(3, 1), nn.MSELoss(), [(torch.eye(3), torch.zeros(3, 1))]).in_dtype(torch.float64).dtype
        torch.float64
        """
        data = self.objective
        return self.on(data.like(data.data, dtype=dtype, microbatch=data.microbatch))

    @property
    def depends_on_order(self) -> bool:
        """True if the matrix changes with the order of the samples or with the mini-batches."""
        return self.objective.batchnorm == "batch" or self.objective.draws

    @property
    def strategy_report(self) -> dict[str, Any]:
        """Description of how products are computed, for provenance; empty before the first one."""
        return self._engine.report

    @property
    def memory(self) -> int | None:
        """Bytes that products may use; None: half of what is free. May be set."""
        return self._engine.memory

    @memory.setter
    def memory(self, bound: int | None) -> None:
        self._engine.memory = bound

    @property
    def batch_map(self) -> BatchMap:
        """The matrix of one mini-batch."""
        return self._engine.map

    def derivatives(self) -> Verdict:
        """Verify the derivatives before the first number, as every product does by itself, and return what was found.

        The gradient of the user's own model, and two independent routes to the second derivatives, on a few samples of the
        first mini-batch; see :func:`.verification.verify`. Remembered: a second call costs nothing.

        Cost: about 10 gradients of the few samples.

        Raises:
            UnverifiedDerivatives, CapturedParameter, NotDeterministic: no number of this operator could be trusted; the
                message names the likely cause and the remedy.

        >>> H = hessian(nn.Linear(3, 1), nn.MSELoss(), [(torch.eye(3), torch.zeros(3, 1))])
        >>> H.derivatives().how
        'forward over reverse against reverse over reverse'
        """
        return self._engine.verify(forward=True)

    def view(self, *, memory: int | None = None, strategy_report: Mapping[str, Any] | None = None) -> CurvatureOperator:
        """Return this matrix for one solve; see :meth:`.Capabilities.view`.

        Objective, traced programs and kept linearisations are shared. Memory bound, strategy and what was chosen are its own.

        >>> H = hessian(nn.Linear(3, 1), nn.MSELoss(), [(torch.eye(3), torch.zeros(3, 1))])
        >>> bounded = H.view(memory=1 << 30)
        >>> bounded.memory, H.memory, torch.allclose(bounded @ torch.ones(4), H @ torch.ones(4))
        (1073741824, None, True)
        """
        made = copy.copy(self)
        made._original = self._original or self  # its fingerprint and identity are computed once, there
        made._engine = self._engine.view(self.memory if memory is None or self.memory is not None else memory)
        if strategy_report:
            made._engine.replay(strategy_report)
        return made

    def replay(self, report: Mapping[str, Any] | None) -> None:
        """Compute products as a :attr:`strategy_report` says, for the same bits as there; None: as was asked for."""
        self._engine.replay(report)

    def predicted_bytes(self, columns: int) -> int:
        """Memory in bytes that a product with ``columns`` vectors takes at its peak, beside the block itself.

        From the shapes of the traced program: copy and sum of the block, residuals that are kept, and one group of vectors
        on its way through a mini-batch. Measured peaks were within a factor of 2; ``double_backward``, which is not traced,
        is a guess from what its graph saves. Cost: the trace, if there was no product yet, and one evaluation.

        Raises:
            InvalidArgument: no columns.

        >>> H = hessian(nn.Linear(3, 1), nn.MSELoss(), [(torch.eye(3), torch.zeros(3, 1))], strategy="split")
        >>> H.predicted_bytes(100) > 100 * 4 * H.shape[0]
        True
        """
        return self._engine.predicted_bytes(columns)

    def cost_curve(self, widths: Sequence[int] = (1, 2, 4, 8, 16, 32)) -> dict[int, float]:
        """Measured seconds a vector for blocks of each width, remembered: what a solver chooses its block size by.

        Two applications on the first mini-batch, the second one timed and scaled by the batch's share of the loss; what is
        kept between products counts as kept. Cost: for each new width that many products on one mini-batch, twice.

        Raises:
            InvalidArgument: no columns.

        >>> H = hessian(nn.Linear(3, 1), nn.MSELoss(), [(torch.eye(3), torch.zeros(3, 1))])
        >>> sorted(H.cost_curve((1, 4)))
        [1, 4]
        """
        return self._engine.cost_curve(widths)

    def _apply(self, block: Tensor) -> Tensor:
        if self.objective.has_moved():
            self.objective.watch.say_once()
        return self._engine.apply(block)

    def _fingerprint(self) -> str:
        return fingerprint(type(self).__name__, self.objective.fingerprint())

    def _identity(self) -> dict[str, Any]:
        def multiply(vector: Tensor, at: Objective) -> Tensor:
            """The product with the matrix of an objective, by the strategy that every model can do."""
            made = self.on(at)
            made._engine = made._new_engine(strategy="double_backward", memory=self.memory, accumulate=self.dtype)
            return made @ vector

        return of_objective(self, multiply)


class Hessian(CurvatureOperator):
    """The Hessian of an objective; build it with :func:`hessian`."""

    def __init__(self, objective: Objective, **options: Unpack[ProductOptions]) -> None:
        super().__init__(objective, HessianMap(objective), **options)


LINEAR = (nn.NLLLoss, nn.KLDivLoss, nn.L1Loss, functional.nll_loss, functional.kl_div, functional.l1_loss)
"""Criteria without second derivatives in the output."""

CONVEX = (
    nn.CrossEntropyLoss,
    nn.NLLLoss,
    nn.MSELoss,
    nn.L1Loss,
    nn.SmoothL1Loss,
    nn.HuberLoss,
    nn.BCELoss,
    nn.BCEWithLogitsLoss,
    nn.SoftMarginLoss,
)
"""Criteria that are convex in the output, so that the Gauss-Newton matrix has no negative eigenvalue."""


class GeneralizedGaussNewton(CurvatureOperator):
    """The generalised Gauss-Newton matrix of an objective; build it with :func:`ggn`."""

    def __init__(self, objective: Objective, **options: Unpack[ProductOptions]) -> None:
        objective = with_criterion(objective, "the GGN")
        if type(objective.criterion) in LINEAR or objective.criterion in LINEAR:
            log.warning(
                "the GGN is zero: %s is linear in the model's outputs. For log-probabilities leave log_softmax out of the "
                "model and pass nn.CrossEntropyLoss()",
                objective.loss_name.split()[0],
            )
        outputs, criterion = FlatOutputs(), objective.criterion
        inner = outputs.criterion(criterion)

        def differentiated(output: Tensor, target: Any) -> Tensor:
            """The criterion, its operations with right derivatives."""
            with objective.evaluation.rules():
                return inner(output, target)

        of_flat = criterion if type(criterion) in CLOSED_FORMS else differentiated
        curve = loss_hessian(of_flat)
        batch_map = SandwichMap(
            objective,
            lambda output, batch, tangent: curve(output, batch[1], tangent),
            outputs,
            slope=lambda output, batch: loss_slope(of_flat, output, batch[1]),
        )
        super().__init__(objective, batch_map, **options)

    @property
    def semidefinite(self) -> bool:
        """True if the criterion is known to be convex in the outputs."""
        return isinstance(self.objective.criterion, CONVEX)

    def rank_bound(self) -> RankBound:
        """At most N (C - 1) for a softmax cross-entropy, else the number of outputs. Cost: one evaluation of the network."""
        return of_outputs(self.objective)


def with_criterion(objective: Objective, matrix: str) -> Objective:
    """The objective, cut where the network ends and the loss begins: at the logits of a model that computes its own loss.

    Raises:
        InvalidArgument: it is not known where to cut.
    """
    if objective.has_criterion:
        return objective
    if objective.is_models_own:
        return LogitsObjective(objective)
    if isinstance(objective, FunctionObjective):
        raise InvalidArgument(
            f"{matrix} needs to know the outputs that the loss is a function of: pass function(parameters, x) -> outputs, data "
            "that yields (x, y), and criterion=(outputs, y) -> scalar; of a scalar function alone only the Hessian is known"
        )
    raise InvalidArgument(
        f"{matrix} needs to know where the network ends and the loss begins: pass a criterion (output, target) and "
        "data that yields (x, y), or loss='model' for a Hugging Face model, not a function loss(model, batch)"
    )


class FunctionOptions(TypedDict, total=False):
    """Of functions of a pytree of tensors: ``criterion``, ``(outputs, target) -> scalar``; see :class:`.FunctionObjective`."""

    criterion: Loss | None


class MatrixOptions(ObjectiveOptions, ProductOptions, FunctionOptions, total=False):
    """All options of :func:`hessian` and :func:`ggn`: those of :class:`.objective.Objective` and of :class:`ProductOptions`."""


def computes_own_loss(model: Any, data: Any) -> bool:
    """Return whether a model is Hugging Face's and the data is a batch with labels, or a sequence of such."""
    first = data if isinstance(data, Mapping) else data[0] if isinstance(data, list | tuple) and data else None
    return hasattr(model, "config") and isinstance(model, nn.Module) and isinstance(first, Mapping) and "labels" in first


def build(
    model: nn.Module | Callable[..., Any], loss: Any, data: Iterable[Any] | None, options: Mapping[str, Any], allowed: type
) -> tuple[Objective, ProductOptions]:
    """The objective, and what is left of its options for the products.

    Raises:
        InvalidType: an option that is not in ``allowed``, a typed dictionary, or no data for a model.
    """
    known = allowed.__annotations__
    if unknown := [name for name in options if name not in known]:
        raise InvalidType(unknown_argument("", unknown[0], sorted({*known, "damping"})))
    if loss is None and options.get("criterion") is None and computes_own_loss(model, data):
        loss = "model"
    if loss is None and options.get("criterion") is None and not is_function(model):
        own = "'training_step'" if hasattr(model, "training_step") else "nn.CrossEntropyLoss()"
        raise InvalidType(f"loss is missing: pass (model, loss, data), such as (model, {own}, loader)")
    if isinstance(dtype := options.get("dtype"), np.dtype) or (isinstance(dtype, type) and issubclass(dtype, np.generic)):
        options = {**options, "dtype": np.dtype(dtype).name}
    for name in ("width", "microbatch"):
        if options.get(name) is not None:
            options = {**options, name: integer(name, options[name])}
    products = {name: value for name, value in options.items() if name in ProductOptions.__annotations__}
    rest = {name: value for name, value in options.items() if name not in products}
    objective: Objective
    if is_function(model):
        if beside := [name for name in rest if name not in WeightOptions.__annotations__ and name != "criterion"]:
            raise InvalidArgument(f"{beside[0]}= is for models: a function of parameters has no layers that it could change")
        objective = FunctionObjective(model, loss, data, **rest)
    elif (criterion := rest.pop("criterion", None)) is not None and loss is not None:
        raise InvalidArgument("criterion= is for functions of parameters: for a model pass it as the loss")
    elif data is None:
        raise InvalidType(
            "data is missing: pass (model, loss, data), or (function, parameters) for a scalar function of tensors"
        )
    else:
        objective = Objective(cast("nn.Module", model), criterion if loss is None else loss, data, **rest)
    check_weights(objective)
    return objective, cast("ProductOptions", products)


Matrix = TypeVar("Matrix", bound=Arithmetic)


def with_damping(matrix: Matrix, damping: float | None) -> Matrix | Sum:
    """The matrix plus damping times the identity; the matrix itself for None."""
    return matrix if damping is None else matrix.shift(damping)


def check_weights(objective: Objective) -> None:
    """Say so where batches, or pieces of them, are not weighted by what the loss averages over: a warning in the log.

    Raises:
        InvalidArgument: ``microbatch`` would give another function.
    """
    if objective.weighs_right is not False:
        return
    what, terms = ("sum", "") if objective.sums else ("mean", ", weighted by their numbers of samples or labels")
    reason = f"the loss of a batch is not the {what} of its halves' losses{terms}"
    remedy = (
        "pass weight=lambda batch: number of loss terms (with class weights or ignored labels: what the mean divides by), "
        "reduction='sum' for a sum, or nn.CrossEntropyLoss(...) and the like as modules, which are understood"
    )
    if objective.num_pieces > objective.num_batches:
        raise InvalidArgument(f"{reason}, so that microbatch would change the matrix: {remedy}; or drop microbatch")
    log.warning("%s, so that other batches of the same data would give another matrix: %s", reason, remedy)


@overload
def hessian(
    model: nn.Module | Callable[..., Any],
    loss: Any = None,
    data: Iterable[Any] | None = None,
    *,
    damping: float,
    **options: Unpack[MatrixOptions],
) -> Sum: ...


@overload
def hessian(
    model: nn.Module | Callable[..., Any],
    loss: Any = None,
    data: Iterable[Any] | None = None,
    **options: Unpack[MatrixOptions],
) -> Hessian: ...


@checked
def hessian(
    model: nn.Module | Callable[..., Any],
    loss: Any = None,
    data: Iterable[Any] | None = None,
    *,
    damping: float | None = None,
    **options: Unpack[MatrixOptions],
) -> Hessian | Sum:
    r"""The Hessian of the mean loss at the model's present parameters, which are copied, as an operator.

    After training on, ``H.move()`` follows the model; a product at weights that the model no longer has is said once.

    .. math:: H = \sum_b w_b \, \nabla^2_\theta\, \ell(f_\theta, \mathrm{batch}_b)

    Exact products, symmetric, D x D; the same matrix for every batching of the same data. Also the Hessian of any scalar
    function of tensors: ``hessian(function, parameters)`` with ``function(parameters) -> scalar`` and a tensor, or nested
    dictionaries and lists of tensors, whose paths are the parameters' names; ``hessian(function, parameters, data)`` with
    ``function(parameters, batch) -> mean``; see :class:`.functions.FunctionObjective`. Arguments and errors are those of
    :class:`.objective.Objective`; ``strategy``, ``width``, ``memory`` and ``accumulate`` those of :class:`ProductOptions`.
    ``damping=mu`` gives H + mu I, a :class:`.Sum` as :meth:`.Arithmetic.shift` makes it.

    Cost: a product costs 0.5 to 2 gradients of the loss with the traced strategies, 2 to 4 by double backward, with which
    "auto" begins; tracing costs 6 to 10 gradients and 2 ms for each operation of the forward pass, and is done when products
    have taken as long, or long work begins. Memory: the residuals of one mini-batch
    (about its activations) and a bounded group of vectors; residuals of more batches are kept while they fit.
    Limits: piecewise linear networks have the Hessian of their current linear piece. Source: Pearlmutter (1994).

    >>> model = nn.Linear(3, 1, bias=False)
    >>> x = torch.eye(3)
    >>> H = hessian(model, nn.MSELoss(), [(x, torch.zeros(3, 1))])
    >>> H @ torch.ones(3)                   # 2/3 times the identity
    tensor([0.6667, 0.6667, 0.6667])
    >>> hessian(lambda p: p["a"] ** 2 * p["b"][0], {"a": torch.tensor(3.0), "b": [torch.tensor(1.0)]}) @ torch.eye(2)
    tensor([[2., 6.],
            [6., 0.]])
    """
    objective, products = build(model, loss, data, options, MatrixOptions)
    return with_damping(Hessian(objective, **products), damping)


@overload
def ggn(
    model: nn.Module | Callable[..., Any],
    loss: Any = None,
    data: Iterable[Any] | None = None,
    *,
    damping: float,
    **options: Unpack[MatrixOptions],
) -> Sum: ...


@overload
def ggn(
    model: nn.Module | Callable[..., Any],
    loss: Any = None,
    data: Iterable[Any] | None = None,
    **options: Unpack[MatrixOptions],
) -> GeneralizedGaussNewton: ...


@checked
def ggn(
    model: nn.Module | Callable[..., Any],
    loss: Any = None,
    data: Iterable[Any] | None = None,
    *,
    damping: float | None = None,
    **options: Unpack[MatrixOptions],
) -> GeneralizedGaussNewton | Sum:
    r"""The generalised Gauss-Newton matrix of the mean loss at the model's present parameters (copied), as an operator.

    .. math:: G = \sum_b w_b\, J_b^\top \big(\nabla^2_f\, \ell\big)\, J_b, \qquad J_b = \partial f_\theta / \partial \theta

    Positive semi-definite for a convex loss; equal to the Fisher matrix for softmax cross-entropy and for squared error.
    Needs a criterion and pairs (x, y), or ``loss="model"`` with a Hugging Face model whose loss has a known form: language
    models (causal, masked, sequence to sequence), classification, regression, question answering, CLIP, masked autoencoders;
    otherwise as :func:`hessian`. The network may return a tuple or dictionary of tensors. For functions:
    ``ggn(function, parameters, data, criterion=...)`` with ``function(parameters, x) -> outputs``. The loss Hessian is
    used in closed form for     cross-entropy, squared error and binary cross-entropy with logits.

    Cost: a product costs about two thirds of a Hessian product. Source: Schraudolph (2002); Martens (2020).

    >>> model = nn.Linear(2, 2, bias=False)
    >>> G = ggn(model, nn.CrossEntropyLoss(), [(torch.eye(2), torch.tensor([0, 1]))])
    >>> G.shape, G.hermitian
    ((4, 4), True)
    """
    objective, products = build(model, loss, data, options, MatrixOptions)
    return with_damping(GeneralizedGaussNewton(objective, **products), damping)
