"""The Hessian of a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Unpack, overload

from torch import nn

from curvscope.operators._algebra import Sum
from curvscope.operators.collective import Grouped, grouped
from curvscope.operators.curvature._build import MatrixOptions, build, with_damping
from curvscope.operators.curvature._operator import CurvatureOperator, ProductOptions
from curvscope.operators.objective import (
    Objective,
)
from curvscope.operators.products import (
    HessianMap,
)
from curvscope.system import checked


class Hessian(CurvatureOperator):
    """The Hessian of an objective; build it with :func:`hessian`."""

    def __init__(self, objective: Objective, **options: Unpack[ProductOptions]) -> None:
        super().__init__(objective, HessianMap(objective), **options)


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
) -> Hessian | Grouped | Sum:
    r"""The Hessian of the mean loss at the model's present parameters, which are copied, as an operator.

    After training on, ``H.move()`` follows the model; a product at weights that the model no longer has is said once.

    .. math:: H = \sum_b w_b \, \nabla^2_\theta\, \ell(f_\theta, \mathrm{batch}_b)

    Exact products, symmetric, D x D; the same matrix for every batching of the same data. Also the Hessian of any scalar
    function of tensors: ``hessian(function, parameters)`` with ``function(parameters) -> scalar`` and a tensor, or nested
    dictionaries and lists of tensors, whose paths are the parameters' names; ``hessian(function, parameters, data)`` with
    ``function(parameters, batch) -> mean``; see :class:`.functions.FunctionObjective`. Arguments and errors are those of
    :class:`.objective.Objective`; ``strategy``, ``width``, ``memory`` and ``accumulate`` those of :class:`ProductOptions`.
    ``damping=mu`` gives H + mu I, a :class:`.Sum` as :meth:`.Arithmetic.shift` makes it. Under torchrun ``group="world"``, or a
    process group, gives the matrix of the data of all its processes, a :class:`.Grouped`.

    Cost: a product costs 0.5 to 2 gradients of the loss with the traced strategies, 2 to 4 by double backward, with which
    "auto" begins; tracing costs 6 to 10 gradients and 2 ms for each operation of the forward pass, and is done when products
    have taken as long, or long work begins. Memory: the residuals of one mini-batch
    (about its activations) and a bounded group of vectors; residuals of more batches are kept while they fit.
    Limits: piecewise linear networks have the Hessian of their current linear piece. Source: Pearlmutter (1994).

    >>> import torch
    >>> model = nn.Linear(3, 1, bias=False)
    >>> x = torch.eye(3)
    >>> H = hessian(model, nn.MSELoss(), [(x, torch.zeros(3, 1))])
    >>> H @ torch.ones(3)                   # 2/3 times the identity
    tensor([0.6667, 0.6667, 0.6667])
    >>> hessian(lambda p: p["a"] ** 2 * p["b"][0], {"a": torch.tensor(3.0), "b": [torch.tensor(1.0)]}) @ torch.eye(2)
    tensor([[2., 6.],
            [6., 0.]])
    """
    if options.get("group") is not None:
        return grouped(hessian, (model, loss, data), {**options, "damping": damping})
    objective, products = build(model, loss, data, options, MatrixOptions)
    return with_damping(Hessian(objective, **products), damping)
