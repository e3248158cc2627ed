"""A solution with a certificate: fresh residuals, measured noise, and a bound on everything that was not found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from curvscope.certify import Certificate, product_error, product_noise, residuals_and_shifts, tail_norm
from curvscope.errors import InvalidArgument
from curvscope.execution import Progress
from curvscope.operators import CurvatureOperator, as_operator
from curvscope.sketches import TestMatrix
from curvscope.solvers.checks import check_operator
from curvscope.solvers.meter import Meter
from curvscope.solvers.solution import Solution
from curvscope.solvers.solve import metered
from curvscope.tall import orthogonality

BLOCK = 32


def certify(
    operator: Any,
    solution: Solution,
    *,
    steps: int = 60,
    failure: float = 1e-6,
    seed: int = 0,
    executor: Any = None,
    progress: Progress = None,
) -> Solution:
    """Prove what can be proven about a solution: which pairs are complete, how wrong values, vectors and overlaps can be.

    Measures all residuals afresh, the error of single products (of those in TF32, bfloat16 or float16 against float32), and the
    norm of the operator on the complement of the vectors by a Lanczos run from a random start. From then on
    ``solution.intervals`` are the sharper ones, ``solution.certificate`` answers for angles and clusters, and
    :func:`curvscope.overlap` gives ``lower`` and ``upper``.

    Args:
        operator: the one that the solution is of.
        solution: by magnitude (``which="LM"``), for the statements are about the largest.
        steps: of the Lanczos run; 60 overestimate the tail by 5% for D = 7,000, by 8% for D = 10^7.
        failure: probability that the bound on the tail is wrong.
        seed: of its start.
        executor: who computes the products; see :func:`curvscope.eigsh`. The Lanczos run has one at a time, whoever computes
            it; the few in float32 that coarse ones are compared with are computed here. None: this process.
        progress: see :data:`.progress.Progress`.

    Returns:
        The same solution with new residuals and a certificate.

    Cost: k + steps + 9 products; in coarse arithmetic 6 more of either kind, and one evaluation of the loss on all data.

    Raises:
        InvalidArgument: another operator than the solution's (by fingerprint), another order than LM.
    Limits: the bound is for the operator that is applied: its sampling error is not covered. In coarse arithmetic it is for the
        matrix in float32, as far as the error of those few products is the largest.
    Source: theory as in :class:`.Certificate` and :func:`.overlap_bracket`.

    >>> import torch
    >>> from curvscope.solvers.eigsh import eigsh
    >>> A = torch.diag(torch.tensor([5.0, -4.0, 1.0, 0.5, 0.1], dtype=torch.float64))
    >>> certify(A, eigsh(A, k=2)).certificate.complete
    2
    """
    operator = as_operator(operator)
    check_operator(operator)
    if solution.order != "LM":
        raise InvalidArgument(
            f'certificates are about the largest magnitudes, the solution has order {solution.order!r}: use "LM"'
        )
    known = solution.provenance.get("fingerprint")
    if operator.shape[0] != solution.eigenvectors.shape[0] or known not in (None, operator.fingerprint):
        raise InvalidArgument(
            f"this is not the operator of the solution (fingerprint {operator.fingerprint[:12]}, the solution's is "
            f"{str(known)[:12]}): pass the same parameters, data, loss and dtype"
        )
    with metered(operator, executor, progress) as meter:
        return _certified(meter, solution, steps, failure, seed)


def _certified(meter: Meter, solution: Solution, steps: int, failure: float, seed: int) -> Solution:
    operator = meter.operator
    values, vectors = solution.eigenvalues, solution.eigenvectors
    with meter.stage("residuals", solution.k):
        residuals, shifts = residuals_and_shifts(meter.multiply, values, vectors, block_size=BLOCK)
    random = TestMatrix(
        "gaussian", operator.shape[0], seed=seed, role="certificate", dtype=operator.dtype, device=operator.device
    )
    with meter.stage("noise", 9):
        noise = product_noise(meter.multiply, vectors, random.columns(1, 3))
    exact = operator.exactly() if isinstance(operator, CurvatureOperator) else None
    extra = 0
    if exact is not None:
        with meter.stage("arithmetic", 12):
            exact_meter = Meter(exact, progress=False)
            noise = noise.or_more(product_error(meter.multiply, exact_meter.multiply, vectors, random.columns(1, 3)))
            extra = exact_meter.products
    # Columns that are orthonormal only to rounding make everything wrong by that factor, like noise relative to A v.
    noise = replace(noise, relative=noise.relative + 2 * orthogonality(vectors, spectral=True))
    with meter.stage("tail norm", steps):
        tail = tail_norm(meter.multiply, vectors, random.columns(0, 1)[:, 0], steps=steps, failure=failure)
    certificate = Certificate(values, residuals, tail, noise, shifts)
    cost = replace(
        solution.cost,
        certificate_products=solution.cost.certificate_products + meter.products + extra,
        passes=solution.cost.passes + meter.passes,
        stages={**solution.cost.stages, "certificate": sum(s for name, s in meter.seconds.items() if name != "products")},
    )
    return replace(solution, residual_norms=residuals, certificate=certificate, cost=cost)
