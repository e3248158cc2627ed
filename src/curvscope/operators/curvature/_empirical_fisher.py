"""The empirical Fisher matrix: the second moment of the samples' gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Unpack, overload

from torch import Tensor, nn
from torch.func import grad

from curvscope.errors import InvalidArgument
from curvscope.operators._algebra import Sum
from curvscope.operators._rank import RankBound, of_samples
from curvscope.operators.collective import Grouped, grouped
from curvscope.operators.curvature._build import FisherOptions, build, with_criterion, with_damping
from curvscope.operators.curvature._operator import CurvatureOperator, ProductOptions
from curvscope.operators.objective import (
    COUNTED,
    ELEMENTWISE,
    Batch,
    Objective,
    criterion_terms,
)
from curvscope.operators.products import FlatOutputs, ForwardModeLosses, SandwichMap, TokenScores, token_curvature
from curvscope.system import checked


class EmpiricalFisher(CurvatureOperator):
    """Second moment of the samples' gradients; build it with :func:`empirical_fisher`."""

    semidefinite = True

    def __init__(self, objective: Objective, **options: Unpack[ProductOptions]) -> None:
        objective = with_criterion(objective, "the empirical Fisher matrix")
        if getattr(objective, "mixes_samples", False):
            raise InvalidArgument(
                "the empirical Fisher matrix needs samples whose losses do not depend on each other, and this model's loss "
                "compares all samples of a batch: use cs.ggn, or cs.gradient_second_moment for mini-batches"
            )

        outputs = FlatOutputs()
        criterion = outputs.criterion(objective.criterion)

        def curve(output: Tensor, batch: Batch, tangent: Tensor) -> Tensor:
            """The labels' scores, times their products with the tangent; the score of a mean has the number of terms in it."""
            outputs.check_samples(output)
            with ForwardModeLosses():
                score = grad(lambda inner: criterion(inner, batch[1]))(output)
            return outer(score, tangent, label_axes(objective.criterion, output.ndim)) * _divisor(objective, batch)

        tokens = token_curvature(TokenScores, objective.criterion)
        super().__init__(objective, SandwichMap(objective, curve, outputs, tokens=tokens), **options)

    def rank_bound(self) -> RankBound:
        """At most the number of samples. Cost: one evaluation of the network."""
        return of_samples(self.objective)


def label_axes(criterion: Callable[..., Tensor], ndim: int) -> tuple[int, ...]:
    """The axes of an output of ``ndim`` axes that belong to one label; the other axes count the labels.

    The classes of a cross-entropy (axis 1, as in PyTorch), the last axis for element-wise criteria, all axes but the first for
    criteria that are not known. As in curvlinops.

    >>> label_axes(nn.CrossEntropyLoss(), 3), label_axes(nn.MSELoss(), 3), label_axes(nn.TripletMarginLoss(), 3)
    ((1,), (2,), (1, 2))
    """
    if isinstance(criterion, nn.CrossEntropyLoss | nn.NLLLoss):
        return (1,) if ndim > 1 else (0,)
    if isinstance(criterion, ELEMENTWISE):
        return (ndim - 1,) if ndim > 1 else ()
    return tuple(range(1, ndim))


def outer(score: Tensor, tangent: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return score_i <score_i, tangent_i> for every label i, whose entries lie along ``axes``."""
    return score * ((score * tangent).sum(axes, keepdim=True) if axes else score * tangent)


def _divisor(objective: Objective, batch: Batch) -> float:
    """Number of terms that the mean over a batch divides by; 1 for a sum."""
    if objective.sums:
        return 1.0
    known = isinstance(objective.criterion, COUNTED)
    return criterion_terms(objective.criterion, batch) if known else objective.terms(batch)


@overload
def empirical_fisher(
    model: nn.Module | Callable[..., Any],
    loss: Any,
    data: Iterable[Any] | None = None,
    *,
    damping: float,
    **options: Unpack[FisherOptions],
) -> Sum: ...


@overload
def empirical_fisher(
    model: nn.Module | Callable[..., Any],
    loss: Any,
    data: Iterable[Any] | None = None,
    **options: Unpack[FisherOptions],
) -> EmpiricalFisher: ...


@checked
def empirical_fisher(
    model: nn.Module | Callable[..., Any],
    loss: Any,
    data: Iterable[Any] | None = None,
    *,
    damping: float | None = None,
    **options: Unpack[FisherOptions],
) -> EmpiricalFisher | Grouped | Sum:
    r"""The empirical Fisher matrix: the second moment of the labels' gradients, for the labels in the data.

    .. math:: F = \frac{1}{T} \sum_i g_i g_i^\top, \qquad g_i = \nabla_\theta\, \ell(f_\theta(x), y)_i

    T is the number of terms that the mean loss divides by, and :math:`\ell_i` the sum of the terms that belong to label i, its
    negative log-likelihood. For labels drawn from the model the expectation of F is therefore :func:`.curvature.ggn`.
    One label is

    - for a cross-entropy with outputs (N, C, ...): the C classes at one place; T counts the labels that have a loss, or is the
      sum of their class weights;
    - for squared error, binary cross-entropy and other element-wise criteria with outputs (N, ..., C): the last axis; T is the
      number of entries;
    - for any other criterion: all axes but the first; T is ``weight(batch)``, by default N.

    For a criterion that sums there is no 1/T. A criterion of your own that averages over C outputs as well needs ``weight=``,
    such as ``lambda batch: batch[1].numel()``; else its matrix is 1/C of that of ``nn.MSELoss()``. Needs a criterion and
    pairs (x, y). D x D, positive semi-definite.

    Cost: that of a GGN product; no gradient of a single label is formed. Limits: it is no approximation of the Hessian
    away from a perfect fit. Arguments and errors: see :func:`.curvature.hessian`. Source: Kunstner et al. (2019).

    >>> import torch
    >>> F = empirical_fisher(nn.Linear(2, 2), nn.CrossEntropyLoss(), [(torch.eye(2), torch.tensor([0, 1]))])
    >>> F.shape
    (6, 6)
    """
    if options.get("group") is not None:
        return grouped(empirical_fisher, (model, loss, data), {**options, "damping": damping})
    objective, products = build(model, loss, data, options, FisherOptions)
    return with_damping(EmpiricalFisher(objective, **products), damping)
