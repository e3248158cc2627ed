"""What ``method="auto"`` takes: the dense matrix where it is small and its products are cheap, else krylov."""

from __future__ import annotations

from curvscope.operators.base import Operator
from curvscope.operators.objective import Objective
from curvscope.operators.products import total_work
from curvscope.solvers.sizing import default_width, products_for_many

EXACT_UP_TO = 1500
"""D up to which the matrix may be formed."""
FEW_TIMES = 4
"""The matrix takes D products, krylov far fewer for few pairs: up to so many times as many, the matrix costs about the same,
as its products come in wide blocks, and it misses nothing."""
CHEAP = 1e11
"""Operations that all products of the matrix may take beyond that: some ten seconds of one core. Counted, not timed: times vary
from call to call, and a run that is resumed must be solved as it was begun."""
EVALUATIONS = 6
"""For each product: a Hessian-vector product takes about two gradients, each three evaluations of the loss."""


def takes_exact(operator: Operator, k: int) -> bool:
    """Return whether the matrix is formed for k pairs, by its size and by what its products cost.

    A product goes through the whole network, frozen parameters too: a thousand parameters of adapters in a network of millions
    are no small problem.

    >>> import torch
    >>> from curvscope.operators import as_operator
    >>> takes_exact(as_operator(torch.eye(1000)), 3), takes_exact(as_operator(torch.eye(1501)), 3)
    (True, False)
    """
    size, objective = operator.shape[0], operator.objective
    if size > EXACT_UP_TO:
        return False
    if objective is None or size <= FEW_TIMES * products_for_many(k, default_width(k)):
        return True
    return EVALUATIONS * size * _evaluation(objective, size) <= CHEAP


def _evaluation(objective: Objective, size: int) -> float:
    """Operations of one evaluation of the loss on all data.

    At least one multiplication and one addition for each parameter and loss term, where kernels do not show what they compute.
    A convolution takes many more.
    """
    numbers = sum(parameter.numel() for parameter in objective.model.parameters())
    terms = max(objective.total_terms, objective.num_batches)
    return max(2 * max(numbers, size) * terms, total_work(objective))
