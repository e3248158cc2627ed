"""From singular triplets to a SingularSolution: fresh residuals, status, cost, provenance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from curvscope.certificates import dilation_residuals
from curvscope.measurement import Meter, blocks, remembered
from curvscope.solvers.driver._completeness import Evidence
from curvscope.solvers.driver._finish import provenance, status_of, with_evidence
from curvscope.solvers.results import Cost, SingularSolution, phases, turn_columns
from curvscope.system import peak_resident_bytes
from curvscope.tall import InMemory, TallMatrix, multiply, orthogonality, polish, small_svd

ADVICE = "a sketch does not iterate: judge each triplet by its residual, the whole by posterior_error"


@dataclass
class Triplets:
    """Triplets that a solver found, largest first, stored but not yet certified."""

    left: TallMatrix
    values: Tensor
    right: TallMatrix
    diagnostics: dict[str, float]


def triplets_of_core(
    meter: Meter, left: TallMatrix, core: Tensor, right: TallMatrix, *, k: int, diagnostics: dict[str, float]
) -> Triplets:
    """The k largest triplets of P C Q* (P left, Q right), kept with what they cost."""
    with meter.stage("recovery", 0):
        turn, values, back = small_svd(core)
        U, V = multiply(left, turn[:, :k]), multiply(right, back[:k].mH)
        polish(U)
        polish(V)
        factors = phases(U)
        turn_columns(U, factors)
        turn_columns(V, factors)
        facts = {"diagnostics": diagnostics, **meter.spent()}
        vectors = meter.workspace.keep({"U": U, "V": V}, {"values": values[:k]}, facts)
    return Triplets(vectors["U"], values[:k], vectors["V"], diagnostics)


def recalled_triplets(meter: Meter) -> Triplets | None:
    """The triplets that an earlier session of this very solve found, if any; the meter then counts what they cost."""
    found = meter.workspace.kept()
    if found is None:
        return None
    vectors, (facts, tensors) = found
    meter.restore(facts)
    return Triplets(vectors["U"], tensors["values"], vectors["V"], facts["diagnostics"])


def finish_singular(
    meter: Meter,
    triplets: Triplets,
    *,
    options: dict[str, Any],
    tol: float | None = None,
    advice: str = ADVICE,
    evidence: Evidence | None = None,
) -> SingularSolution:
    """Measure the residuals afresh and put everything into a :class:`SingularSolution`.

    ``tol`` and ``evidence`` about missed triplets: of methods that iterate.

    Cost: k products with A and k with A*.
    """
    U, values, V = triplets.left, triplets.values, triplets.right
    found_with = meter.products - meter.searched
    with meter.stage("residuals", 2 * len(values)):
        residuals = _residuals(meter, U, values, V)
        diagnostics = {**triplets.diagnostics, "orthogonality": max(orthogonality(U), orthogonality(V))}
    status = status_of(values, residuals, tol, advice, unit=torch.finfo(U.dtype).eps)
    solution = SingularSolution(
        U,
        values,
        V,
        residuals,
        with_evidence(status, evidence, "singular", options),
        Cost(
            found_with,
            meter.products - found_with,
            meter.passes,
            dict(meter.seconds),
            peak_resident_bytes(),
            completeness_products=meter.searched,
        ),
        provenance(meter, options),
        diagnostics,
    )
    if meter.workspace.run is None:
        return solution
    placed = meter.workspace.publish(solution.describe, {"U": U, "V": V})
    return replace(solution, U=placed["U"], V=placed["V"])


def _residuals(meter: Meter, U: TallMatrix, values: Tensor, V: TallMatrix) -> Tensor:
    """Fresh residual norms, block by block; a run keeps those of every block."""
    norms = [torch.zeros(0, dtype=torch.float64, device="cpu")]
    for start, stop in blocks(len(values), meter.workspace.widest):

        def measured(start: int = start, stop: int = stop) -> Tensor:
            """Of one block."""
            left, right = (InMemory(matrix.columns(start, stop)) for matrix in (U, V))
            return dilation_residuals(
                meter.multiply, meter.multiply_adjoint, left, values[start:stop], right, block_size=meter.workspace.widest
            )

        norms.append(remembered(meter, f"residuals/{start:08d}-{stop:08d}", 2 * (stop - start), measured))
    return torch.cat(norms)
