"""The generalised Gauss-Newton matrix of a loss."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Unpack, overload

from torch import Tensor, nn
from torch.nn import functional

from curvscope.operators._algebra import Sum
from curvscope.operators._rank import RankBound, of_outputs
from curvscope.operators.collective import Grouped, grouped
from curvscope.operators.curvature._build import MatrixOptions, build, with_criterion, with_damping
from curvscope.operators.curvature._operator import CurvatureOperator, ProductOptions
from curvscope.operators.objective import (
    Objective,
)
from curvscope.operators.products import (
    CLOSED_FORMS,
    FlatOutputs,
    SandwichMap,
    TokenHessian,
    loss_hessian,
    loss_slope,
    token_curvature,
)
from curvscope.system import checked

log = logging.getLogger(__name__)

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
            tokens=token_curvature(TokenHessian, criterion),
        )
        super().__init__(objective, batch_map, **options)

    @property
    def semidefinite(self) -> bool:
        """True if the criterion is known to be convex in the outputs."""
        return isinstance(self.objective.criterion, CONVEX)

    def rank_bound(self) -> RankBound:
        """At most N (C - 1) for a softmax cross-entropy, else the number of outputs. Cost: one evaluation of the network."""
        return of_outputs(self.objective)


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
) -> GeneralizedGaussNewton | Grouped | Sum:
    r"""The generalised Gauss-Newton matrix of the mean loss at the model's present parameters (copied), as an operator.

    .. math:: G = \sum_b w_b\, J_b^\top \big(\nabla^2_f\, \ell\big)\, J_b, \qquad J_b = \partial f_\theta / \partial \theta

    Positive semi-definite for a convex loss; equal to the Fisher matrix for softmax cross-entropy and for squared error.
    Needs a criterion and pairs (x, y), or ``loss="model"`` with a Hugging Face model whose loss has a known form: language
    models (causal, masked, sequence to sequence), classification, regression, question answering, CLIP, masked autoencoders;
    otherwise as :func:`hessian`. The network may return a tuple or dictionary of tensors. For functions:
    ``ggn(function, parameters, data, criterion=...)`` with ``function(parameters, x) -> outputs``. The loss Hessian is
    used in closed form for     cross-entropy, squared error and binary cross-entropy with logits.

    Cost: a product costs about two thirds of a Hessian product. Source: Schraudolph (2002); Martens (2020).

    >>> import torch
    >>> model = nn.Linear(2, 2, bias=False)
    >>> G = ggn(model, nn.CrossEntropyLoss(), [(torch.eye(2), torch.tensor([0, 1]))])
    >>> G.shape, G.hermitian
    ((4, 4), True)
    """
    if options.get("group") is not None:
        return grouped(ggn, (model, loss, data), {**options, "damping": damping})
    objective, products = build(model, loss, data, options, MatrixOptions)
    return with_damping(GeneralizedGaussNewton(objective, **products), damping)
