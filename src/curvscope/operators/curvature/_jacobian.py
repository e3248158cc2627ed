"""The Jacobian of a network's outputs, or of a function, with respect to its parameters, as an operator for singular values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Unpack, cast

import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators._algebra import Arithmetic
from curvscope.operators._parameters import Parameters
from curvscope.operators.fingerprint import fingerprint
from curvscope.operators.objective import (
    Batch,
    FunctionObjective,
    Objective,
    SampleOptions,
    check_substitution,
    dependent,
    is_function,
    is_pair,
)
from curvscope.operators.products import FlatOutputs, explained
from curvscope.system import checked, unknown_argument


class Jacobian(Arithmetic):
    """M x D, one row for each entry of the outputs on all data; build it with :func:`jacobian`."""

    hermitian = False

    def __init__(self, objective: Objective) -> None:
        # Not its ``objective``: the loss in it is a stand-in for checks, and no loss that the matrix is of.
        self.function, self._outputs = objective, FlatOutputs()
        self.dtype, self.device = objective.dtype, objective.device
        with objective.isolated():
            self._lengths = [
                self._flat(objective.output_value(objective.values, batch)).numel() for _, batch in self._batches()
            ]
        self.shape = (sum(self._lengths), objective.parameters.size)

    @property
    def parameters(self) -> Parameters:
        """Names, shapes and places of the D parameters, which the columns belong to."""
        return self.function.parameters

    def _apply(self, block: Tensor) -> Tensor:
        """J v is the derivative of J^T u in u: no forward-mode rules are needed."""
        found = []
        check_substitution(self.function)
        with self.function.isolated(), torch.enable_grad():
            for number, batch in self._batches():
                values, output = self._evaluated(number, batch)
                seed = torch.zeros_like(output, requires_grad=True)
                with explained():
                    pulled = torch.autograd.grad(output, values, seed, create_graph=True, materialize_grads=True)
                    flat = self.parameters.join(pulled)
                    columns = [torch.autograd.grad(flat, seed, column, retain_graph=True)[0] for column in block.T]
                found.append(torch.stack([column.detach() for column in columns], dim=1))
        return torch.cat(found)

    def _apply_adjoint(self, block: Tensor) -> Tensor:
        total = block.new_zeros(self.shape[1], block.shape[1])
        rows = block.split(self._lengths)
        check_substitution(self.function)
        with self.function.isolated(), torch.enable_grad():
            for number, batch in self._batches():
                values, output = self._evaluated(number, batch)
                for index, row in enumerate(rows[number].T):
                    pieces = torch.autograd.grad(output, values, row, retain_graph=True, materialize_grads=True)
                    total[:, index] += self.parameters.join(pieces)
        return total

    def _fingerprint(self) -> str:
        return fingerprint("jacobian", self.function.fingerprint())

    def _batches(self) -> Iterator[tuple[int, Batch]]:
        for number, (batch, _) in enumerate(self.function.batches()):
            yield number, batch

    def _evaluated(self, number: int, batch: Batch) -> tuple[tuple[Tensor, ...], Tensor]:
        self.function.seed(number)
        values = self.function.leaves(self.function.values)
        return values, dependent(self._flat(self.function.output(values, batch)))

    def _flat(self, output: Any) -> Tensor:
        return self._outputs.flat(output).reshape(-1)


class _Pairs:
    """Batches that may lack targets, as pairs."""

    def __init__(self, data: Iterable[Any]) -> None:
        if not isinstance(data, Iterable) and not hasattr(data, "__getitem__"):
            raise InvalidType(f"data is a {type(data).__name__}: pass a list of batches or a DataLoader")
        one = isinstance(data, Tensor) or (isinstance(data, tuple) and len(data) == 2 and all(map(torch.is_tensor, data)))
        self.data = [data] if one else data

    def __iter__(self) -> Iterator[Any]:
        for batch in self.data:
            yield batch if is_pair(batch) else (batch, torch.zeros(0, device="cpu"))


@checked
def jacobian(
    model: nn.Module | Callable[..., Any],
    data: Any,
    inputs: Iterable[Any] | None = None,
    **options: Unpack[SampleOptions],
) -> Jacobian:
    r"""The Jacobian of all outputs with respect to the parameters, as a rectangular operator.

    .. math:: J_{(n, c), i} = \partial f_\theta(x_n)_c / \partial \theta_i

    For :func:`curvscope.svds`, :func:`curvscope.ssvd` and products with ``J @ X`` and ``U @ J``. Rows are the entries of the
    outputs, row-major, batch after batch; nothing is divided by a number of samples.

    Args:
        model: a network, or a function of a pytree of tensors as for :func:`.curvature.hessian`.
        data: for a network: batches that are inputs or pairs (x, y), whose y is not used, or one of them: a tensor, or a
            tuple (x, y). For a function: its parameters.
        inputs: for a function ``function(parameters, x)`` the batches; None: ``function(parameters)`` returns the outputs.
        options: see :class:`.SampleOptions`.

    Cost: a column of ``J @ X`` about two gradients of the outputs, one of the adjoint one; memory: one mini-batch's graph.

    Raises:
        InvalidArgument, InvalidType: as :func:`.curvature.hessian`.

    >>> J = jacobian(nn.Linear(3, 2, bias=False), [torch.eye(3)])
    >>> J.shape, (J @ torch.ones(6)).tolist()
    ((6, 6), [1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    >>> (jacobian(lambda p: p["a"] ** 2, {"a": torch.tensor([1.0, 2.0])}) @ torch.eye(2)).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """
    if unknown := [name for name in options if name not in SampleOptions.__annotations__]:
        raise InvalidType(unknown_argument("jacobian", unknown[0], sorted(SampleOptions.__annotations__)))
    if is_function(model):
        function = model if inputs is not None else lambda parameters, _: model(parameters)
        batches = _Pairs([torch.zeros(1, device="cpu")] if inputs is None else inputs)
        return Jacobian(FunctionObjective(function, data, batches, criterion=_mean, weight=_one, **options))
    if inputs is not None:
        raise InvalidArgument("jacobian(model, data) takes no third argument for a network: pass params= for its parameters")
    return Jacobian(Objective(cast("nn.Module", model), _mean, _Pairs(data), weight=_one, **options))


def _mean(outputs: Any, target: Any) -> Tensor:
    """A scalar for the checks that objectives make of their losses."""
    return FlatOutputs().flat(outputs).mean()


def _one(batch: Batch) -> float:
    return 1.0
