"""One operator whose data are too many for one machine: workers hold shards of the data, their products are summed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.operators._algebra import Composable
from curvscope.operators._parameters import Parameters
from curvscope.operators.fingerprint import fingerprint
from curvscope.operators.remote._recipe import Recipe
from curvscope.operators.remote._worker import Order, built, libraries, multiply, received
from curvscope.parallel import Task, as_workers
from curvscope.system import checked


@dataclass(frozen=True)
class Shard:
    """Facts that a worker reports of its shard.

    Attributes:
        order: makes any worker multiply with it.
        terms: loss terms in it; 0 for a loss that sums.
        at: digest of the parameters, the loss and its modes: of all but the data.
        kind: of matrix.
        parameters: names and shapes.
        dtype: of the products.
    """

    order: Order
    terms: float
    at: str
    kind: str
    parameters: Parameters
    dtype: torch.dtype


class Sharded(Composable):
    """The sum of curvature matrices on shards of the data, weighted by loss terms; build it with :func:`data_parallel`."""

    def __init__(self, shards: list[Shard], executor: Any) -> None:
        self.shards, self.workers = shards, as_workers(executor)
        first = shards[0]
        for number, shard in enumerate(shards):
            ours, theirs = ((s.kind, s.at, s.parameters, s.dtype, s.terms > 0) for s in (first, shard))
            if ours != theirs:
                raise InvalidArgument(
                    f"shard {number} has another model, loss or dtype than shard 0: the function must give all shards the same "
                    "parameters, and only other data"
                )
        size = first.parameters.size
        self.shape, self.dtype, self.device = (size, size), first.dtype, torch.device("cpu")
        total = sum(shard.terms for shard in shards)
        self.weights = [shard.terms / total if total else 1.0 for shard in shards]

    @property
    def parameters(self) -> Parameters:
        """Parameters of every shard."""
        return self.shards[0].parameters

    def _apply(self, block: Tensor) -> Tensor:
        array = block.detach().contiguous().numpy()
        tasks = (Task((shard.order.announced(), array), place=number) for number, shard in enumerate(self.shards))
        total = torch.zeros_like(block)
        for weight, part in zip(self.weights, self.workers.map(multiply, tasks), strict=True):
            total.add_(received(part), alpha=weight)
        return total

    def _fingerprint(self) -> str:
        return fingerprint("sharded", self.weights, [dict(shard.order.expected)["fingerprint"] for shard in self.shards])

    def _identity(self) -> dict[str, Any]:
        parts = [dict(shard.order.expected)["identity"] for shard in self.shards]
        return {"kind": "Sharded", "exact": {"weights": str(self.weights)}, "parts": parts}


@checked
def data_parallel(recipe: Recipe, num_shards: int, executor: Any) -> Sharded:
    r"""One curvature operator whose data are spread over workers.

    .. math:: H = \sum_s \frac{n_s}{\sum_t n_t} H_s,

    with :math:`H_s` the matrix on shard s and :math:`n_s` its number of loss terms, so that shards of unequal size give the
    matrix of all data; for losses that sum, the plain sum. The recipe's function is called with ``shard=0, 1, ...`` and
    ``num_shards=`` in addition, and returns an operator on that part of the data, such as ``dataset[shard::num_shards]``, with
    the same model everywhere. Nothing is loaded in this process.

    Args:
        recipe: of the shards.
        num_shards: how many; as many as there are workers keeps all of them busy.
        executor: see :class:`.Workers`. Under Dask shard i prefers worker i; processes of a pool come to hold several.

    Cost: construction builds every shard once; a product sends the block to all shards and receives one block from each.

    Raises:
        InvalidArgument: no shards, models that differ, a function that makes something else than a curvature operator.
        WorkerError: a worker failed.
    Limits: statistics over a mini-batch (``batchnorm="batch"``) know nothing of the other shards. Another number of shards is
        another operator to a run.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> recipe = Recipe("curvscope.testing.sharding:linear", samples=6)
    >>> with ThreadPoolExecutor(1) as pool:
    ...     H = data_parallel(recipe, 2, pool)
    ...     H.shape, bool(torch.allclose(H @ torch.ones(3), recipe.build() @ torch.ones(3)))
    ((3, 3), True)
    """
    if num_shards < 1:
        raise InvalidArgument(f"num_shards={num_shards}: choose at least 1")
    workers = as_workers(executor)
    parts = [recipe.with_options(shard=number, num_shards=num_shards) for number in range(num_shards)]
    orders = [Order(part, libraries(), threads=workers.threads, share=workers.share) for part in parts]
    tasks = (Task((order,), place=number) for number, order in enumerate(orders))
    return Sharded(list(workers.map(survey, tasks)), workers)


def survey(order: Order) -> Shard:
    """Build a shard and say what it is; called in a worker."""
    operator, order = built(order)
    objective = operator.objective
    if objective is None or not operator.is_mean_over_data:
        raise InvalidArgument(
            f"{order.recipe.target} made a {type(operator).__name__}: shards are curvature operators, or (model, loss, data)"
        )
    return Shard(
        order=order,
        terms=0.0 if objective.sums else objective.total_terms,
        at=objective.fingerprint(data=False),
        kind=type(operator).__name__,
        parameters=objective.parameters,
        dtype=operator.dtype,
    )
