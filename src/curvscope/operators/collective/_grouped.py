"""The matrix of all data of a process group: each process multiplies with its part, the products are summed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument
from curvscope.operators._algebra import Composable, Sum
from curvscope.operators._parameters import Parameters
from curvscope.operators.collective._loaders import without_padding
from curvscope.operators.collective._processes import Processes
from curvscope.operators.fingerprint import fingerprint
from curvscope.operators.objective import Objective, move, split, unwrapped
from curvscope.system import long_work, products_to_come

DIGESTS = 1 << 128
"""Digests are numbers below it."""


class GroupOptions(TypedDict, total=False):
    """``group``: "world" or a process group of ``torch.distributed``, whose members hold parts of the data, see Grouped."""

    group: Any


class Grouped(Composable):
    r"""The matrix of the data of all processes of a group; ``cs.hessian(..., group="world")`` makes it in each of them.

    .. math:: H = \sum_r \frac{n_r}{\sum_s n_s} H_r,

    with :math:`H_r` the matrix of the data of process r and :math:`n_r` its number of loss terms: the same matrix for any
    number of processes and any split of the data; for losses that sum, the plain sum.

    All processes must make the same calls in the same order. What shows progress (solvers, estimators, certificates) is done by
    process 0, which the others serve until it is finished; all of them return its result. A ``run=`` is written by process 0.

    Cost: a product sends the block to every process and adds up one block from each, 2 D b numbers a process and b columns.
    Limits: process 0 holds the basis of a solve. To a run it is the same operator with another number of processes and another
    split of the data, but not the operator that one process makes without a group.

    Args:
        local: the operator on the data of this process.
        processes: of the group.

    Raises:
        InvalidArgument: processes with other parameters, another loss or dtype.
    """

    hermitian = True
    needed_again = "the same model, loss and data, split over any number of processes"

    def __init__(self, local: Any, processes: Processes) -> None:
        self.local, self._processes = local, processes
        self.shape, self.dtype, self.device = local.shape, local.dtype, local.device
        self._number = processes.join(self)
        self._remade: dict[tuple[Any, ...], Grouped | None] = {}
        self._agree()

    def _agree(self) -> None:
        """Compare the processes' operators, and weight each by its loss terms."""
        objective = self.local.objective
        kind = (type(self.local).__name__, objective.fingerprint(data=False), str(self.dtype))
        terms = 0.0 if objective.sums else float(objective.total_terms)
        facts = self._processes.gather((kind, terms, samples_digest(objective), self.local.loss()))
        for rank, (theirs, *_) in enumerate(facts):
            if theirs != facts[0][0]:
                raise InvalidArgument(
                    f"process {rank} has another matrix, model, loss or dtype than process 0: only the data may differ; load "
                    "the same checkpoint, or call torch.manual_seed before the model is made"
                )
        total = sum(terms for _, terms, *_ in facts)
        self._weights = [terms / total if total else 1.0 for _, terms, *_ in facts]
        # A sum: of the samples, whichever process has them in whichever batch.
        self._samples = f"{sum(digest for _, _, digest, _ in facts) % DIGESTS:032x}"
        self._loss = float(sum(weight * loss for weight, (*_, loss) in zip(self._weights, facts, strict=True)))
        for name in ("fingerprint", "identity"):
            self.__dict__.pop(name, None)

    @property
    def process_group(self) -> Processes:
        """The processes of the group."""
        return self._processes

    @property
    def semidefinite(self) -> bool:
        """True if the parts are."""
        return bool(self.local.semidefinite)

    @property
    def stored_objective(self) -> Objective:
        """Of this process's part; the parameters are the same in all."""
        return self.local.objective  # type: ignore[no-any-return]  # of a curvature operator

    @property
    def parameters(self) -> Parameters:
        """Names, shapes and places of the D parameters."""
        return self.local.parameters  # type: ignore[no-any-return]  # of a curvature operator

    @property
    def strategy_report(self) -> dict[str, Any]:
        """Return the choice of process 0 for its products; the others may have chosen otherwise."""
        return {**self.local.strategy_report, "processes": self._processes.size}

    def predicted_bytes(self, columns: int) -> int:
        """Memory of a product in each process beside the block, with the copy that is sent."""
        return int(self.local.predicted_bytes(columns)) + 2 * columns * self.shape[0] * self.dtype.itemsize

    @property
    def rounding(self) -> float:
        """Rounding of the parts."""
        return float(self.local.rounding)

    def exactly(self) -> Grouped | None:
        """See :meth:`.Capabilities.exactly`; of all parts."""
        return self._of_parts("exactly")

    def in_dtype(self, dtype: torch.dtype) -> Grouped | None:
        """See :meth:`.Capabilities.in_dtype`; of all parts."""
        return self._of_parts("in_dtype", dtype)

    def values(self) -> Tensor:
        """The (D,) parameters at which the curvature is measured."""
        return self.local.values()  # type: ignore[no-any-return]

    def loss(self) -> float:
        """The mean loss on all data. Cost: none."""
        return self._loss

    def gradient(self) -> Tensor:
        """The (D,) gradient of the mean loss on all data. Cost: one gradient of each process's data."""
        self._processes.agreed("gradient", self._number)
        return self._gradient()

    def move(self) -> None:
        """Go on to the parameters that the models have now, in all processes; see :meth:`.CurvatureOperator.move`."""
        self._processes.agreed("move", self._number)
        self._move()

    def serve(self, what: str, *details: Any) -> None:
        """Take part, in a process other than 0, in what process 0 does with this operator."""
        if what == "product":
            columns, to_come = details
            self._product(torch.empty(self.shape[1], columns, dtype=self.dtype, device=self.device), to_come)
        elif what == "gradient":
            self._gradient()
        elif what == "move":
            self._move()
        elif what == "identity":
            self._identity_of_all()
        elif what == "remake":
            self._remake(*details)

    def _apply(self, block: Tensor) -> Tensor:
        to_come = products_to_come()
        self._processes.agreed("product", self._number, block.shape[1], to_come)
        return self._product(block, to_come)

    def _product(self, block: Tensor, to_come: int) -> Tensor:
        given = self._processes.shared(block)

        def product() -> Tensor:
            """The product with this process's part."""
            if not to_come:
                return self.local @ given  # type: ignore[no-any-return]
            with long_work(to_come):
                return self.local @ given  # type: ignore[no-any-return]

        return self._summed(self._processes.together(product))

    def _gradient(self) -> Tensor:
        return self._summed(self._processes.together(self.local.gradient))

    def _move(self) -> None:
        self._processes.together(self.local.move)
        self._remade.clear()
        self._agree()

    def _of_parts(self, method: str, *arguments: Any) -> Grouped | None:
        """The matrix of what a method makes of the parts; None where it makes nothing."""
        if (method, *arguments) not in self._remade:
            self._processes.agreed("remake", self._number, method, *arguments)
            self._remake(method, *arguments)
        return self._remade[method, *arguments]

    def _remake(self, method: str, *arguments: Any) -> None:
        """Keep it: where this process only serves, nobody else does."""
        part = self._processes.together(lambda: getattr(self.local, method)(*arguments))
        self._remade[method, *arguments] = None if part is None else Grouped(part, self._processes)

    def _summed(self, part: Tensor) -> Tensor:
        return self._processes.summed(part.mul(self._weights[self._processes.rank]))

    def _fingerprint(self) -> str:
        kind = (type(self.local).__name__, self.local.objective.fingerprint(data=False), str(self.dtype))
        return fingerprint("grouped", kind, self._samples, *self.local.approximation)

    def _identity(self) -> dict[str, Any]:
        self._processes.agreed("identity", self._number)
        return self._identity_of_all()

    def _identity_of_all(self) -> dict[str, Any]:
        """The identity of process 0's part, with the samples and the loss of all parts."""
        own = dict(self._processes.together(lambda: self.local.identity))
        exact = {name: value for name, value in own["exact"].items() if name != "data"}
        values = {"loss": self._loss}
        return {**own, "kind": f"Grouped {own['kind']}", "exact": {**exact, "samples": self._samples}, "values": values}


def samples_digest(objective: Objective) -> int:
    """Return a sum of digests of the samples that an objective is of: the same in any order and any batches.

    Cost: one pass over the data, some 20 microseconds a sample.
    """
    total = 0
    for batch in objective.data:
        for sample in split(batch, 1):
            total += int(fingerprint(move(sample, torch.device("cpu"), objective.dtype)), 16)
    return total % DIGESTS


def grouped(make: Callable[..., Any], arguments: tuple[Any, Any, Any], options: dict[str, Any]) -> Grouped | Sum:
    """The operator that ``make(*arguments, **options)`` makes, over all data of ``options["group"]``.

    Args:
        make: of the operator on the data of one process, such as :func:`.hessian`.
        arguments: model or function, loss, data.
        options: of the operator, ``group`` and ``damping`` among them.

    Raises:
        InvalidArgument: no group was begun, or matrices that do not add up. WorkerError: another process raised an error.
    """
    options = dict(options)
    processes, damping = Processes.of(options.pop("group")), options.pop("damping", None)
    model, loss, data = arguments
    if isinstance(model, nn.Module):
        model = unwrapped(model)
    local = checked_part(processes.together(lambda: make(model, loss, without_padding(data), **options)))
    matrix = Grouped(local, processes)
    return matrix if damping is None else matrix.shift(damping)


def checked_part(local: Any) -> Any:
    """Return an operator of a part of the data.

    Raises:
        InvalidArgument: such operators do not add up to that of all data.
    """
    if local.depends_on_order or not local.is_mean_over_data:
        raise InvalidArgument(
            f"group: a {type(local).__name__} depends on the order of the samples or on the mini-batches, so that parts of the "
            "data do not add up to the matrix of all: use ggn, whose expectation it estimates, or batchnorm='eval'"
        )
    return local
