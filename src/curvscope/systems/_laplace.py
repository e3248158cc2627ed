"""Laplace approximation with k eigenpairs: predictive variances and marginal likelihood, with limits for the truncation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.estimators import check_solution
from curvscope.operators import CurvatureOperator, as_operator
from curvscope.solvers import Solution, eigsh
from curvscope.system import Progress, checked
from curvscope.systems._posterior import Evidence, Posterior

SMALLEST = 1e-12
"""Standard deviation of the noise of a regression below which its likelihood is no number."""


@checked
def laplace(
    operator: Any,
    solution: Solution | None = None,
    *,
    prior_precision: float = 1.0,
    noise: float = 1.0,
    k: int = 20,
    progress: Progress = None,
) -> Posterior:
    r"""Gaussian posterior of the weights, with the precision of k eigenpairs of the curvature and an isotropic prior.

    .. math:: \Lambda = s\, V \mathrm{diag}(\lambda) V^\top + \tau I, \qquad
        \mathrm{Var}[f(x)] = J_x \Lambda^{-1} J_x^\top

    s makes the curvature that of a negative log-likelihood: the number of samples for a mean cross-entropy, 1 for a sum, and
    entries / (2 sigma^2) for a mean squared error with noise of standard deviation sigma.

    Args:
        operator: a curvature operator of the training loss: :func:`curvscope.ggn`, or a Fisher matrix. Its loss is
            ``nn.CrossEntropyLoss`` without label smoothing, or ``nn.MSELoss``.
        solution: eigenpairs of this operator; a certified one proves what the truncation leaves out. None: the k largest are
            computed.
        prior_precision: tau, of every weight.
        noise: sigma, for regression.
        k: pairs to compute where there is no solution.
        progress: see :data:`.progress.Progress`.

    Returns:
        A :class:`.Posterior`: ``variance(x)`` with limits for the truncation, ``evidence``, ``samples``, ``precision``.

    Cost: none beside the solution; a prediction a gradient of each output of each sample, and 4 D k operations.

    Raises:
        InvalidArgument: a matrix that has negative eigenvalues among its pairs, another loss, a solution of another operator.
    Limits: the linearised network at one mode. Truncation makes variances too large, never too small, for exact pairs of a
        matrix without negative eigenvalues.
    Source: MacKay (1992); Immer, Korzepa and Bauer (AISTATS 2021); Daxberger et al. (NeurIPS 2021).

    >>> import curvscope as cs
    >>> model, data = nn.Linear(2, 2), [(torch.randn(6, 2), torch.arange(6) % 2)]
    >>> posterior = cs.laplace(cs.ggn(model, nn.CrossEntropyLoss(), data), k=6)
    >>> posterior.variance(torch.randn(3, 2)).covariance.shape
    torch.Size([3, 2, 2])
    """
    matrix = as_operator(operator)
    if not isinstance(matrix, CurvatureOperator):
        raise InvalidType(f"a {type(matrix).__name__} is of no loss: pass the operator that cs.ggn gives")
    if not 0 < prior_precision < math.inf:
        raise InvalidArgument(f"prior_precision={prior_precision}: choose a positive number, the precision of every weight")
    if not SMALLEST < noise < math.inf:
        raise InvalidArgument(f"noise={noise}: choose a positive standard deviation of the targets")
    scale, likelihood = _likelihood(matrix, noise)
    if solution is None:
        solution = eigsh(matrix, min(k, matrix.shape[0]), progress=progress)
    check_solution(matrix, solution, "solution")
    least, most = float(solution.eigenvalues.min()), float(solution.eigenvalues.abs().max())
    if least < -1e3 * matrix.rounding * most:
        raise InvalidArgument(
            f"the solution has the eigenvalue {least:.3g}: a posterior needs a matrix without negative ones, such as cs.ggn"
        )
    return Posterior(matrix, solution, scale, prior_precision, _evidence(matrix, solution, scale, prior_precision, likelihood))


def _likelihood(matrix: CurvatureOperator, noise: float) -> tuple[float, float]:
    """(s, log-likelihood): the factor that makes the loss a negative log-likelihood, and the likelihood at the mode.

    Raises:
        InvalidArgument: a loss that is no likelihood that we know.
    """
    objective = matrix.objective
    criterion = getattr(objective, "criterion", None) if objective.has_criterion else None
    total = 1.0 if objective.sums else objective.total_terms
    if isinstance(criterion, nn.CrossEntropyLoss) and not criterion.label_smoothing and criterion.weight is None:
        return total, -total * objective.mean_loss
    if isinstance(criterion, nn.MSELoss):
        entries = float(_entries(matrix))
        factor = (1.0 if objective.sums else entries) / (2 * noise**2)
        return factor, -factor * objective.mean_loss - entries * math.log(noise * math.sqrt(2 * math.pi))
    name = type(criterion).__name__ if criterion is not None else "loss of its own"
    raise InvalidArgument(
        f"cs.laplace knows nn.CrossEntropyLoss() and nn.MSELoss() as likelihoods, not a {name}: for another one use "
        "solution.low_rank(prior_precision / N) as the precision over N"
    )


def _entries(matrix: CurvatureOperator) -> int:
    """Return the number of output entries on the training data."""
    objective, count = matrix.objective, 0
    with objective.isolated(), torch.no_grad():
        for number, (batch, _) in enumerate(objective.batches()):
            objective.seed(number)
            output = objective.output_value(objective.values, batch)
            count += int(output.numel()) if isinstance(output, Tensor) else 0
    return count


def _evidence(matrix: CurvatureOperator, solution: Solution, scale: float, prior: float, likelihood: float) -> Evidence:
    """Return the log marginal likelihood; the log-determinant ratio of what is left out lies within its bound.

    It is not negative where the matrix has no negative eigenvalues.
    """
    weights = matrix.values().double()
    scatter = prior * float(weights.square().sum())
    size, k = matrix.shape[0], solution.k
    ratios = (scale * solution.eigenvalues.clamp(min=0) / prior).log1p()
    determinant = float(ratios.sum())
    value = likelihood - 0.5 * (determinant + scatter)
    left = solution.low_rank(prior / scale, positive=True).left_out
    bound = math.inf if left is None else left.bound
    rank = matrix.rank_bound()
    others = max(0, min(size, rank.rank if rank is not None else size) - k)
    certificate = solution.certificate
    moved = float(certificate.rho[-1]) if certificate is not None and k else 0.0
    own = k * math.log1p(scale * moved / prior)  # pairs are matched with eigenvalues within this
    rest = others * math.log1p(scale * bound / prior) if others and math.isfinite(bound) else (math.inf if others else 0.0)
    below = 0.0 if matrix.semidefinite or not others else _most_lowered(others, scale * bound / prior)
    return Evidence(value, value - 0.5 * (rest + own), value + 0.5 * (below + own), likelihood, determinant, scatter)


def _most_lowered(count: int, ratio: float) -> float:
    """Return by how much ``count`` eigenvalues of at least -ratio, relative to the prior's, lower the log-determinant."""
    return -count * math.log1p(-ratio) if ratio < 1 else math.inf
