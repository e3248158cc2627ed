"""The operator of a weighted sum over mini-batches: what Hessian, Gauss-Newton and Fisher matrices share."""

from __future__ import annotations

import copy
import logging
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypedDict, Unpack

import torch
from torch import Tensor

from curvscope.errors import CurvscopeError, InvalidArgument
from curvscope.operators._algebra import Composable
from curvscope.operators._identity import of_objective
from curvscope.operators._parameters import Parameters
from curvscope.operators.curvature._copies import Copies
from curvscope.operators.fingerprint import fingerprint
from curvscope.operators.objective import (
    Objective,
)
from curvscope.operators.products import (
    BatchMap,
    Engine,
    Verdict,
)

log = logging.getLogger(__name__)


class ProductOptions(TypedDict, total=False):
    """Options of how products are computed; the matrix does not depend on them.

    strategy: "auto" (double backward until tracing pays, then what is fastest, remembered; in long work at once), or "split",
    "split_vmap", "linearize", "linearize_vmap", "double_backward". "differences" for models that PyTorch cannot differentiate
    twice: central differences of the gradient, not exact, never chosen by "auto"; "extrapolated_differences": with two steps,
    twice the cost, more exact. width: vectors at a time; None: chosen. memory: bytes that
    products may use; None: half of what is free. accumulate: dtype of the columns and of the sum over mini-batches; default:
    the objective's, float32 for half-precision ones. compile: True: traced programs go through PyTorch's compiler, which takes
    30 s to minutes (without a C++ compiler they run as they are, and the log says so); "auto": it is tried on a GPU in
    announced long work, where that pays, and taken where it is faster; False: never.
    """

    strategy: (
        Literal[
            "auto",
            "split",
            "split_vmap",
            "linearize",
            "linearize_vmap",
            "double_backward",
            "differences",
            "extrapolated_differences",
        ]
        | str
    )
    width: int | None
    memory: int | None
    accumulate: torch.dtype | None
    compile: bool | Literal["auto"]


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
            compile=options.get("compile", "auto"),
        )
        self._engine = self._new_engine()

    def move(self) -> None:
        """Go on to the parameters that the model has now: from here on this is another matrix, with another fingerprint.

        For following a training run: what was traced is used again, unless buffers or frozen parameters have changed.

        Cost: one evaluation of the loss on all data.

        >>> from torch import nn
        >>> from curvscope.operators import hessian
        >>> model, data = nn.Linear(3, 1), [(torch.eye(3), torch.zeros(3, 1))]
        >>> H, before = hessian(model, nn.L1Loss(), data), model.weight.clone()
        >>> with torch.no_grad():
        ...     _ = model.weight.add_(1)
        >>> torch.equal(H.values()[:3], before[0]), H.move(), torch.equal(H.values()[:3], model.weight[0])
        (True, None, True)
        """
        self.batch_map.calibration = None
        if self.objective.move():
            self._engine.forget()
        else:
            self.batch_map.verdict = None
            self._engine = self._new_engine()
        for name in ("fingerprint", "identity"):
            self.__dict__.pop(name, None)

    def exchange(self, data: Iterable[Any]) -> None:
        """Go on to other data at the same parameters: from here on this is another matrix, with another fingerprint.

        What was traced is used again for batches of shapes that were seen. Cost: one evaluation of the loss on the data.

        >>> import curvscope as cs
        >>> H = cs.hessian(torch.nn.Linear(2, 1), torch.nn.MSELoss(), [(torch.eye(2), torch.zeros(2, 1))])
        >>> H.exchange([(2 * torch.eye(2), torch.zeros(2, 1))])
        >>> (H @ torch.ones(3))[:2]
        tensor([6., 6.])
        """
        self.batch_map.calibration = None
        self.objective.exchange(data)
        self._engine.forget()
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
        """Machine epsilon of the arithmetic that products are computed in: coarse for TF32, bfloat16 and float16.

        For products by differences of gradients their relative error, measured by two steps.
        """
        if not self._engine.by_differences:
            return self.objective.rounding
        return max(self.objective.rounding, self.derivatives().error)

    def on(self, objective: Objective) -> CurvatureOperator:
        """The matrix of the same kind of another objective."""
        # Of a matrix by differences one by differences: exact products may not exist.
        return self._made_on(objective, self._engine.strategy if self._engine.by_differences else "auto")

    def _made_on(self, objective: Objective, strategy: str) -> CurvatureOperator:
        make: Callable[..., CurvatureOperator] = type(self)  # its batch map is made from the objective
        return make(objective, strategy=strategy)

    def exactly(self) -> CurvatureOperator | None:
        """This matrix with products in full float32, what TF32, bfloat16 or float16 ones are compared with; None: it is that.

        What products by differences are compared with: exact ones where PyTorch can differentiate the model twice, else
        extrapolated differences.

        At the model's own parameters where ours are these, rounded. Cost: one evaluation of the loss on all data; memory for
        one more copy of the parameters.
        """
        if self._engine.by_differences:
            return self._without_differences()
        if self.objective.chosen_rounding <= torch.finfo(torch.float32).eps:
            return None
        return self.in_dtype(torch.float32)

    def _without_differences(self) -> CurvatureOperator | None:
        """The exact matrix; extrapolated differences where there is none; None for those themselves."""
        objective = self.objective
        if objective.chosen_rounding > torch.finfo(torch.float32).eps:
            objective = objective.like(objective.data, dtype=torch.float32, microbatch=objective.microbatch)
        exact = self._made_on(objective, "auto")
        try:
            exact.derivatives()
        except (CurvscopeError, RuntimeError, NotImplementedError) as error:
            log.debug("no exact products to compare differences with: %s", error)
            extrapolated = self._engine.strategy != "differences"
            return None if extrapolated else self._made_on(objective, "extrapolated_differences")
        return exact

    def in_dtype(self, dtype: torch.dtype) -> CurvatureOperator:
        """This matrix with all of the computation in another dtype, such as float64 for :func:`curvscope.certify`.

        At the model's own parameters where ours are these, rounded. Cost: one evaluation of the loss on all data; memory for
        one more copy of the parameters.

        >>> from torch import nn
        >>> from curvscope.operators import hessian
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

        >>> from torch import nn
        >>> from curvscope.operators import hessian
        >>> H = hessian(nn.Linear(3, 1), nn.MSELoss(), [(torch.eye(3), torch.zeros(3, 1))])
        >>> H.derivatives().how
        'forward over reverse against reverse over reverse'
        """
        return self._engine.verify(forward=True)

    @property
    def approximation(self) -> tuple[str, ...]:
        """Name of the strategy, where products are not exact."""
        return (self._engine.strategy,) if self._engine.by_differences else ()

    def view(self, *, memory: int | None = None, strategy_report: Mapping[str, Any] | None = None) -> CurvatureOperator:
        """Return this matrix for one solve; see :meth:`.Capabilities.view`.

        Objective, traced programs and kept linearisations are shared. Memory bound, strategy and what was chosen are its own.

        >>> from torch import nn
        >>> from curvscope.operators import hessian
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

        >>> from torch import nn
        >>> from curvscope.operators import hessian
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

        >>> from torch import nn
        >>> from curvscope.operators import hessian
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
        return fingerprint(type(self).__name__, self.objective.fingerprint(), *self.approximation)

    def _identity(self) -> dict[str, Any]:
        def multiply(vector: Tensor, at: Objective) -> Tensor:
            """The product with the matrix of an objective, by the strategy that every model can do."""
            made = self.on(at)
            strategy = self._engine.strategy if self._engine.by_differences else "double_backward"
            made._engine = made._new_engine(strategy=strategy, memory=self.memory, accumulate=self.dtype)
            return made @ vector

        found = of_objective(self, multiply)
        if self._engine.by_differences:
            found["exact"] |= {"products": self._engine.strategy}
        return found
