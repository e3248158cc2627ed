"""Verification after the fact: norms, errors and scree bounds of any solution from fresh products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from curvscope.certificates import FrobeniusEstimate, Samples, Scree, sample, scree_bounds
from curvscope.errors import InvalidArgument, InvalidType
from curvscope.measurement import draw
from curvscope.operators import as_operator
from curvscope.solvers.driver import metered
from curvscope.solvers.results import SingularSolution, Solution
from curvscope.solvers.sizing import check_block_size
from curvscope.system import Progress, checked
from curvscope.tall import TallMatrix

ROLE = "posterior"
"""Of the probes: no solver draws from it, so that they are independent of every approximation."""


@checked
def posterior_error(
    operator: Any,
    solution: Solution | SingularSolution,
    *,
    num_probes: int = 30,
    seed: int = 0,
    block_size: int = 32,
    executor: Any = None,
    progress: Progress = None,
) -> FrobeniusEstimate:
    r"""Estimates of ||A||_F, ||A_hat||_F and ||A - A_hat||_F, with their probability bounds.

    A_hat is the solution's V diag(lambda) V* (or U diag(S) V*). The probes are Gaussian and have a role of their own, so that
    they are independent of the random numbers of every solver, whatever the seeds; the residuals of all truncations come from
    the same probes.

    Args:
        operator: the one that the solution is of; anything that ``as_operator`` takes.
        solution: of any solver.
        num_probes: q; :func:`curvscope.probes_needed` gives it from a confidence.
        seed: another one gives independent probes.
        block_size: probes a product call.
        executor: who computes the products; see :func:`curvscope.eigsh`. None: this process.
        progress: see :data:`.progress.Progress`.

    Returns:
        ``.norm, .approximation, .error, .relative``, their standard errors, ``.bounds(confidence)``, ``.truncation_errors``.

    Cost: num_probes products; 6 D k operations a probe; memory: three D x block_size blocks.

    Raises:
        InvalidArgument: another shape than the solution's, num_probes < 1. NotFinite: a product has NaN in it.
    Limits: it checks the whole approximation, not single pairs (residuals do), and it is a lower limit for what the products
        themselves get wrong.
    Source: Tropp, Yurtsever, Udell, Cevher (SISC 2019), section 6.

    >>> from curvscope.solvers import seigh
    >>> A = torch.diag(torch.arange(1.0, 41.0, dtype=torch.float64))
    >>> estimate = posterior_error(A, seigh(A, num_outer=20), num_probes=10)
    >>> low, high = estimate.bounds(0.99)
    >>> estimate.truncation_errors.shape, low < estimate.error < high
    (torch.Size([21]), True)
    """
    operator = as_operator(operator).without_assumption()
    left, values, right = factors(solution)
    if (left.shape[0], right.shape[0]) != operator.shape:
        raise InvalidArgument(
            f"the solution is of a {left.shape[0]} x {right.shape[0]} operator, this one is {operator.shape[0]} x "
            f"{operator.shape[1]}: pass the operator that was decomposed"
        )
    if num_probes < 1:
        raise InvalidArgument(f"num_probes={num_probes}: choose at least 1, better 30")
    check_block_size(block_size)
    probes = draw("gaussian", operator, seed=seed, role=ROLE)
    seen = []
    with metered(operator, executor, progress) as meter, meter.stage("probes", num_probes):
        for start in range(0, num_probes, block_size):
            block = probes.columns(start, min(start + block_size, num_probes))
            seen.append(sample(block, meter.multiply(block), left, values, right))
    return FrobeniusEstimate(_together(seen), values, operator.dtype.is_complex, meter.products)


@checked
def scree(
    operator: Any,
    solution: Solution | SingularSolution,
    *,
    num_probes: int = 30,
    confidence: float | None = None,
    seed: int = 0,
    block_size: int = 32,
    executor: Any = None,
    progress: Progress = None,
) -> Scree:
    """Bounds for the share of ||A||_F^2 that the best approximation of each rank leaves; see :func:`.scree.scree_bounds`.

    Args:
        operator: the one that the solution is of.
        solution: of any solver.
        num_probes: for the norms.
        confidence: None: the bounds take the estimated norms for the true ones; else they hold with this probability.
        seed: of the probes.
        block_size: probes a product call.
        executor: who computes the products; see :func:`curvscope.eigsh`. None: this process.
        progress: see :data:`.progress.Progress`.

    Cost: num_probes products.

    Raises:
        InvalidArgument, NotFinite: as :func:`posterior_error`.

    >>> from curvscope.solvers import seigh
    >>> A = torch.diag(torch.tensor([5.0, -4.0, 1.0] + [0.0] * 17))
    >>> scree(A, seigh(A, num_outer=6), num_probes=5).smallest_rank(0.05)
    2
    """
    how = {"block_size": block_size, "executor": executor, "progress": progress}
    estimate = posterior_error(operator, solution, num_probes=num_probes, seed=seed, **how)
    return scree_bounds(estimate, confidence=confidence)


def factors(solution: Solution | SingularSolution) -> tuple[TallMatrix, Tensor, TallMatrix]:
    """(U, values, V) with A_hat = U diag(values) V*, largest magnitude first only if the solution is ordered so."""
    match solution:
        case Solution():
            return solution.eigenvectors, solution.eigenvalues, solution.eigenvectors
        case SingularSolution():
            return solution.U, solution.S, solution.V
    raise InvalidType(f"expected a solution of eigsh, seigh, ssvd, ..., got a {type(solution).__name__}")


def _together(parts: list[Samples]) -> Samples:
    return Samples(torch.cat([part.norm for part in parts]), torch.cat([part.error for part in parts], dim=1))
