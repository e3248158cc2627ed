"""A solution with a certificate: fresh residuals, measured noise, and a bound on everything that was not found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from curvscope.certificates import (
    Certificate,
    EndCertificate,
    ProductNoise,
    product_error,
    product_noise,
    refined,
    residuals_and_shifts,
    tail_norm,
)
from curvscope.errors import InvalidArgument
from curvscope.measurement import Meter, Place, Workspace, blocks, check_hermitian, remembered
from curvscope.operators import as_operator, operator_differences, recorded
from curvscope.operators.base import Operator
from curvscope.sketches import TestMatrix
from curvscope.solvers.certification._certificate_room import BLOCK, Room, room_for_certificate
from curvscope.solvers.certification._certificate_run import CertificateRun, certificate_workspace, lanczos_state
from curvscope.solvers.driver import check_operator, metered
from curvscope.solvers.results import Solution, canonical_signs
from curvscope.store import CERTIFYING, Run
from curvscope.system import Progress, checked
from curvscope.tall import InMemory, TallMatrix, orthogonality


@checked
def certify(  # noqa: PLR0913 -- a public function: request and resources, by keyword
    operator: Any,
    solution: Solution,
    *,
    steps: int = 60,
    failure: float = 1e-6,
    seed: int = 0,
    memory: int | str | None = None,
    run: Place | Run | None = None,
    executor: Any = None,
    progress: Progress = None,
) -> Solution:
    """Prove what can be proven about a solution: which pairs are complete, how wrong values, vectors and overlaps can be.

    Measures all residuals afresh, the error of single products (of those in TF32, bfloat16 or float16 against float32), and the
    norm of the operator on the complement of the vectors by a Lanczos run from a random start. From then on
    ``solution.intervals`` are the sharper ones, ``solution.certificate`` answers for angles and clusters, and
    :func:`curvscope.overlap` gives ``lower`` and ``upper``.

    **In higher precision.** What float32 products have mixed, they cannot tell apart. Pass the same operator with
    ``dtype=torch.float64`` for a solution in float32 (or one with float32 products for a solution in TF32 or bfloat16): the k
    products that check it then make its pairs Ritz pairs of that operator, in its dtype, and intervals are narrow even where
    two eigenvalues nearly agree.

    Args:
        operator: the one that the solution is of, real or complex, or the same in higher precision.
        solution: of any order; overlaps have bounds for ``which="LM"`` only.
        steps: of the Lanczos run. More of them prove more where eigenvalues are close: of 20 that are 0.2 % apart 60 steps
            prove none complete, 480 all. The text of the solution says where more may help.
        failure: probability that the bound on the tail is wrong.
        seed: of its start.
        memory: bound for the memory of the whole process, as for :func:`curvscope.eigsh`; None: what it has and 0.8 of what is
            free.
        run: the run that the solution is of: what is measured is kept there until the certificate is complete, so that the same
            call resumes, and the vectors of the Lanczos run lie there if memory is short. The certificate itself is returned,
            not stored; ``curvscope certify RUN`` stores it.
        executor: who computes the products; see :func:`curvscope.eigsh`. The Lanczos run has one at a time, whoever computes
            it; the few in float32 that coarse ones are compared with are computed here. None: this process.
        progress: see :data:`.progress.Progress`.

    Returns:
        The same solution with new residuals and a certificate; in higher precision a new one, with its pairs improved.

    Cost: k + steps + 9 products, in coarse arithmetic 6 more of either kind and one evaluation of the loss on all data; in
        higher precision also 10 D k^2 operations and the memory of two D x k matrices of it. Memory: steps + 8 vectors, or 42
        where that is more; with a run and little memory 42.

    Raises:
        NotHermitian: the products show that the operator is not symmetric.
        InvalidArgument: another operator than the solution's (by fingerprint; in higher precision by the residuals), another
            order than LM in higher precision. OutOfBudget: the vectors exceed ``memory``. RunConflict: another process works on
            the run.
    Limits: the bound is for the operator that is applied: its sampling error is not covered. In coarse arithmetic it is for the
        matrix in float32, as far as the error of those few products is the largest.
    Source: theory as in :class:`.Certificate` and :func:`.overlap_bracket`.

    >>> import torch
    >>> from curvscope.solvers import eigsh
    >>> A = torch.diag(torch.tensor([5.0, -4.0, 1.0, 0.5, 0.1], dtype=torch.float64))
    >>> certify(A, eigsh(A, k=2)).certificate.complete
    2
    """
    operator = as_operator(operator)
    check_operator(operator, real=False)
    higher = is_finer(operator, solution)
    if higher and solution.order != "LM":
        raise InvalidArgument(
            f"pairs of order {solution.order!r} are certified in their own precision: pass the operator of the solution, or "
            "solve in higher precision"
        )
    if operator.shape[0] != solution.eigenvectors.shape[0]:
        raise InvalidArgument(
            f"the operator has D = {operator.shape[0]}, the eigenvectors have {solution.eigenvectors.shape[0]} rows: pass the "
            "operator of the solution"
        )
    if not higher and (differing := operator_differences(solution.provenance, operator, there="in the solution")):
        raise InvalidArgument(
            f"this is not the operator of the solution: {'; '.join(differing)}. Pass {operator.needed_again}, "
            "with the same or a more precise dtype"
        )
    room = room_for_certificate(
        operator, k=solution.k, steps=steps, memory=memory, higher=higher, has_run=run is not None and not higher
    )

    def prove(meter: Meter) -> Solution:
        """Measure and certify."""
        return _certified(meter, solution, steps, failure, seed, higher=higher)

    measured = partial(_measured, operator, prove, room, executor, progress)
    if run is None:
        return measured(Workspace(room.block_size))
    opened = run if isinstance(run, Run) else Run.open(run)
    if opened.work is not None:  # the caller has a session
        return measured(certificate_workspace(opened, operator, solution, room, {"steps": steps, "seed": seed}))
    with opened.session(CERTIFYING):
        return measured(certificate_workspace(opened, operator, solution, room, {"steps": steps, "seed": seed}))


def _measured(
    operator: Operator, prove: Callable[[Meter], Solution], room: Room, executor: Any, progress: Progress, place: Workspace
) -> Solution:
    """The certified solution; what a run kept to resume is removed at the end."""
    place.products = room.products
    with metered(operator, executor, progress, place) as meter:
        certified = prove(meter)
    if isinstance(place, CertificateRun):
        place.clear()
    return certified


def rounding_of(solution: Solution) -> float:
    """Machine epsilon of the arithmetic in which the products of a solution were computed."""
    return float(solution.provenance.get("rounding", torch.finfo(solution.eigenvectors.dtype).eps))


def is_finer(operator: Operator, solution: Solution) -> bool:
    """Return whether an operator's products, or else the vectors that it takes, are more precise than a solution's were."""
    ours, theirs = (torch.finfo(dtype).eps for dtype in (operator.dtype, solution.eigenvectors.dtype))
    return (operator.rounding, ours) < (rounding_of(solution), theirs)


def product_rounding(solution: Solution) -> float:
    """By how much products in that arithmetic may differ from exact ones, relative to the largest eigenvalue; generous."""
    return min(100 * rounding_of(solution), 0.1)


def _certified(meter: Meter, solution: Solution, steps: int, failure: float, seed: int, *, higher: bool) -> Solution:
    operator = meter.operator
    with meter.stage("residuals", solution.k):
        solution, proven = (_in_higher_precision if higher else _as_it_is)(meter, solution)
    values, vectors = solution.eigenvalues, solution.eigenvectors
    random = TestMatrix(
        "gaussian", operator.shape[0], seed=seed, role="certificate", dtype=operator.dtype, device=operator.device
    )
    noise, further = _remembered_noise(meter, vectors, random)
    # Columns that are orthonormal only to rounding make everything wrong by that factor, like noise relative to A v.
    noise = replace(noise, relative=noise.relative + 2 * orthogonality(vectors, spectral=True))
    with meter.stage("tail norm", steps):
        state = lanczos_state(meter.workspace, operator, min(steps, max(1, operator.shape[0] - solution.k)))
        if state is not None and state.made:
            meter.recall(state.made, 0.0, passes=state.made)
        ends, start = solution.order != "LM", random.columns(0, 1)[:, 0]
        tail = tail_norm(meter.multiply, vectors, start, steps=steps, failure=failure, ends=ends, state=state)
    if ends:
        certificate: Certificate = EndCertificate(values, solution.residual_norms, tail, noise, order=solution.order, **proven)
    else:
        certificate = Certificate(values, solution.residual_norms, tail, noise, **proven)
    cost = replace(
        solution.cost,
        certificate_products=solution.cost.certificate_products + meter.products + further,
        passes=solution.cost.passes + meter.passes,
        stages={**solution.cost.stages, "certificate": sum(s for name, s in meter.seconds.items() if name != "products")},
    )
    return replace(solution, certificate=certificate, cost=cost)


def _remembered_noise(meter: Meter, vectors: TallMatrix, random: TestMatrix) -> tuple[ProductNoise, int]:
    """See :func:`_noise`; a run keeps it."""
    before = meter.products

    def compute() -> dict[str, Tensor]:
        """The noise, and what it cost."""
        noise, further = _noise(meter, vectors, random.columns(1, 3))
        numbers = [noise.floor, noise.relative, further, meter.products - before]
        return {"found": torch.tensor(numbers, dtype=torch.float64, device="cpu")}

    floor, relative, further, made = meter.workspace.remember("noise", compute)["found"].tolist()
    if meter.products == before:
        meter.recall(int(made), 0.0, passes=1)
    return ProductNoise(floor, relative), int(further)


def _noise(meter: Meter, vectors: TallMatrix, random: Tensor) -> tuple[ProductNoise, int]:
    """Return what products get wrong, coarse ones against float32; and how many float32 ones it took."""

    def multiply(block: Tensor) -> Tensor:
        """These products, which also show whether the operator is symmetric at all."""
        products = meter.multiply(block)
        check_hermitian(InMemory(block), InMemory(products), meter.operator)
        return products

    with meter.stage("noise", 9):
        noise = product_noise(multiply, vectors, random)
    exact = meter.operator.exactly()
    if exact is None:
        return noise, 0
    with meter.stage("arithmetic", 6):
        reference = Meter(exact, progress=False)
        return noise.or_more(product_error(meter.multiply, reference.multiply, vectors, random)), reference.products


def _as_it_is(meter: Meter, solution: Solution) -> tuple[Solution, dict[str, Tensor]]:
    """The solution with fresh residuals, and what else they showed."""
    width, parts = meter.workspace.widest, []
    for start, stop in blocks(solution.k, BLOCK):

        def measured(start: int = start, stop: int = stop) -> Tensor:
            """Of one block."""
            vectors, values = InMemory(solution.eigenvectors.columns(start, stop)), solution.eigenvalues[start:stop]
            return torch.stack(residuals_and_shifts(meter.multiply, values, vectors, block_size=width))

        parts.append(remembered(meter, f"residuals/{start:08d}-{stop:08d}", stop - start, measured))
    residuals, shifts = torch.cat([torch.zeros(2, 0, dtype=torch.float64, device="cpu"), *parts], dim=1)
    return replace(solution, residual_norms=residuals), {"shifts": shifts}


def _in_higher_precision(meter: Meter, solution: Solution) -> tuple[Solution, dict[str, Tensor]]:
    """The solution as Ritz pairs of the more precise operator, and how nearly they are."""
    operator = meter.operator
    found = refined(meter.multiply, solution.eigenvectors, operator.dtype, block_size=meter.workspace.widest)
    canonical_signs(found.eigenvectors)
    rounding = product_rounding(solution) * float(solution.eigenvalues.abs().max())
    difference = (found.eigenvalues.sort().values - solution.eigenvalues.sort().values).abs().max()
    if float(difference) > 2 * float(solution.residual_norms.norm()) + rounding:
        raise InvalidArgument(
            f"these are not eigenpairs of this operator: on their span its eigenvalues are up to {float(difference):.1e} away "
            f"from the solution's, whose residuals are at most {float(solution.residual_norms.max()):.1e}: pass the same "
            "parameters, data and loss"
        )
    better = replace(
        solution,
        eigenvalues=found.eigenvalues,
        eigenvectors=found.eigenvectors,
        residual_norms=found.residual_norms,
        provenance={
            **solution.provenance,
            **recorded(operator),
            "dtype": str(operator.dtype).removeprefix("torch."),
            "rounding": operator.rounding,
            "refined from": {name: solution.provenance.get(name) for name in ("fingerprint", "dtype", "rounding")},
        },
        diagnostics={**solution.diagnostics, "orthogonality": orthogonality(found.eigenvectors)},
        basis=None,
    )
    return better, {"couplings": found.couplings}
