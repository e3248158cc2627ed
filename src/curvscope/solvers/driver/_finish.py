"""From Ritz values and vectors to a Solution: signs, fresh residuals, status, cost, provenance."""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from curvscope.certificates import product_noise, residual_norms
from curvscope.errors import DamagedData
from curvscope.measurement import Meter, blocks, remembered
from curvscope.operators import Parameters, recorded
from curvscope.operators.base import Operator
from curvscope.sketches import TestMatrix
from curvscope.solvers.driver._completeness import Evidence
from curvscope.solvers.results import Cost, Solution, Status, canonical_signs
from curvscope.system import peak_resident_bytes
from curvscope.tall import InMemory, TallMatrix, orthogonality, polish

VECTORS = "eigenvectors"
MOST_ROUNDING, ROUNDING_EACH = 1e4, 4.0
"""Rounding units of ||A|| beyond which residuals are not taken for rounding; how many measured errors they may be."""
log = logging.getLogger(__name__)


@dataclass
class Pairs:
    """Pairs that a solver found, in the wanted order, not yet certified.

    ``tol`` is what the residuals are held against; None for methods that do not iterate. ``polished``: the vectors are polished
    and kept. ``chosen``: what the method decided on the way, to be recorded with the options. ``norm``: what is known of ||A||
    beside the pairs, whose rounding residuals are held against too. ``evidence``: what is shown about missed pairs.
    ``basis``: to continue from, where it was asked for.
    """

    eigenvalues: Tensor
    eigenvectors: TallMatrix
    tol: float | None
    advice: str
    diagnostics: dict[str, float] = field(default_factory=dict)
    polished: bool = False
    chosen: dict[str, Any] = field(default_factory=dict)
    norm: float = 0.0
    evidence: Evidence | None = None
    basis: Any = None


def finish(meter: Meter, pairs: Pairs, *, which: str, options: dict[str, Any]) -> Solution:
    """Measure the residuals afresh and put everything into a :class:`Solution`.

    Cost: k products.
    """
    pairs = polish_and_store(meter, pairs)
    values = pairs.eigenvalues.double().cpu()
    found_with = meter.products - meter.searched
    with meter.stage("residuals", len(values)):
        residuals = _residuals(meter, values, pairs.eigenvectors)
        defect = orthogonality(pairs.eigenvectors)
    advice, unit = _advice(meter, pairs), unit_of(meter.operator)
    status = status_of(values, residuals, pairs.tol, advice, unit=unit, norm=pairs.norm)
    if status.code == "partly" and pairs.evidence is not None and pairs.evidence.sufficient:
        # The iteration has converged by its own account: what is left may be more rounding than 10 u ||A||.
        rounding = _measured_rounding(meter, pairs, residuals, unit)
        status = status_of(values, residuals, pairs.tol, advice, unit=unit, norm=pairs.norm, rounding=rounding)
    solution = Solution(
        eigenvalues=values,
        eigenvectors=pairs.eigenvectors,
        residual_norms=residuals,
        order=which,
        status=with_evidence(status, pairs.evidence, which, options),
        cost=Cost(
            found_with,
            meter.products - found_with,
            meter.passes,
            dict(meter.seconds),
            peak_resident_bytes(),
            completeness_products=meter.searched,
        ),
        provenance=provenance(meter, options | pairs.chosen),
        diagnostics={**pairs.diagnostics, "orthogonality": defect},
        parameters=_parameters(meter.operator),
        basis=pairs.basis,
    )
    if (folder := meter.workspace.finished()) is not None:  # asked for once more: it may have a certificate by now
        try:
            return Solution.load(folder)
        except DamagedData as error:
            log.warning("%s: written again, without what was certified of it", error)
    if meter.workspace.run is None:
        return solution
    vectors = meter.workspace.publish(solution.describe, {VECTORS: solution.eigenvectors})
    return replace(solution, eigenvectors=vectors[VECTORS])


def _advice(meter: Meter, pairs: Pairs) -> str:
    """Return what to do about pairs that did not converge; where products are coarse, that may be why."""
    unit = meter.operator.rounding
    if unit <= torch.finfo(torch.float32).eps:
        return pairs.advice
    return f"{pairs.advice}, or products in float32: these are rounded to {unit:.0e}, residuals far below that cannot be seen"


def unit_of(operator: Operator) -> float:
    """Return what sums over products round to; float32 where a model in float64 computes parts in float32."""
    return max(torch.finfo(operator.dtype).eps, min(operator.rounding, torch.finfo(torch.float32).eps))


def polish_and_store(meter: Meter, pairs: Pairs) -> Pairs:
    """Pairs with polished vectors of canonical sign, kept with what they cost; they are not polished twice."""
    if pairs.polished:
        return pairs
    with meter.stage("polishing", 0):
        polish(pairs.eigenvectors)
        canonical_signs(pairs.eigenvectors)
        facts = {
            "tol": pairs.tol,
            "advice": pairs.advice,
            "diagnostics": pairs.diagnostics,
            "chosen": pairs.chosen,
            "norm": pairs.norm,
            "evidence": pairs.evidence and asdict(pairs.evidence),
            **meter.spent(),
        }
        vectors = meter.workspace.keep({VECTORS: pairs.eigenvectors}, {"eigenvalues": pairs.eigenvalues}, facts)
    return replace(pairs, eigenvectors=vectors[VECTORS], polished=True)


def recalled(meter: Meter) -> Pairs | None:
    """The polished pairs that an earlier session of this very solve found, if any; the meter then counts what they cost."""
    found = meter.workspace.kept()
    if found is None:
        return None
    vectors, (facts, tensors) = found
    meter.restore(facts)
    return Pairs(
        tensors["eigenvalues"],
        vectors[VECTORS],
        facts["tol"],
        facts["advice"],
        facts["diagnostics"],
        polished=True,
        chosen=facts["chosen"],
        norm=facts.get("norm", 0.0),  # runs of versions before it was kept
        evidence=_evidence_of(facts.get("evidence")),
    )


def _evidence_of(facts: dict[str, Any] | None) -> Evidence | None:
    if not facts:
        return None
    return Evidence(**{**facts, "bounds": tuple(tuple(bound) for bound in facts["bounds"])})


def _residuals(meter: Meter, values: Tensor, vectors: TallMatrix) -> Tensor:
    """Fresh residual norms, block by block; a run keeps those of every block."""
    norms = [torch.zeros(0, dtype=torch.float64, device="cpu")]
    for start, stop in blocks(len(values), meter.workspace.widest):

        def measured(start: int = start, stop: int = stop) -> Tensor:
            """Of one block."""
            block = InMemory(vectors.columns(start, stop))
            return residual_norms(meter.multiply, values[start:stop], block, block_size=meter.workspace.widest)

        norms.append(remembered(meter, f"residuals/{start:08d}-{stop:08d}", stop - start, measured))
    return torch.cat(norms)


def _measured_rounding(meter: Meter, pairs: Pairs, residuals: Tensor, unit: float) -> float:
    """Residual norms that the rounding of products explains, as measured with 9 of them; 0 where it cannot be the reason."""
    scale = max(float(pairs.eigenvalues.abs().max()), pairs.norm)
    late = residuals > float(pairs.tol or 0) * pairs.eigenvalues.abs().cpu()
    if float(residuals[late].max()) > MOST_ROUNDING * unit * scale:
        return 0.0
    operator = meter.operator
    random = TestMatrix(
        "gaussian", operator.shape[0], seed=0, role="rounding", dtype=operator.dtype, device=operator.device
    ).columns(0, 2)
    with meter.stage("noise", 9):
        noise = product_noise(meter.multiply, pairs.eigenvectors, random)
    return ROUNDING_EACH * max(noise.floor, noise.relative * scale)


def is_converged(values: Tensor, residuals: Tensor, tol: float, *, scale: float, unit: float) -> Tensor:
    """Return which pairs have residuals within tol |lambda|, or within what rounding allows: 10 u ||A||.

    ``scale`` stands for ||A||: the largest |lambda| known.
    """
    return residuals <= torch.clamp(tol * values.abs(), min=10 * unit * scale)


def status_of(
    values: Tensor,
    residuals: Tensor,
    tol: float | None,
    advice: str,
    *,
    unit: float,
    norm: float = 0.0,
    rounding: float = 0.0,
) -> Status:
    """The status that fresh residuals earn; without ``tol`` the method did not iterate.

    ``norm``: as in :class:`Pairs`; ``rounding``: residual norms that measured rounding explains.
    """
    if tol is None:
        return Status("approximate", advice)
    scale = max(float(values.abs().max()) if len(values) else 0.0, norm)
    done = is_converged(values, residuals, tol, scale=scale, unit=unit)
    good = int((done | (residuals <= rounding)).sum())
    if good == len(values):
        within = f"tol={tol:.3g}" if bool((residuals <= tol * values.abs()).all()) else f"tol={tol:.3g} or rounding"
        if not bool(done.all()):
            within = f"tol={tol:.3g} or the rounding of products, measured as {rounding:.1e}"
        return Status("converged", f"all {good} residuals, measured with fresh products, are within {within}")
    return Status("partly", f"{good} of {len(values)} residuals are within tol={tol:.3g}; {advice}")


def with_evidence(status: Status, evidence: Evidence | None, which: str, options: dict[str, Any]) -> Status:
    """The status with what was shown about missed pairs; it is not "converged" where that is too little."""
    if not status.converged or not options.get("tol"):
        return status
    if evidence is None:
        return status
    text = f"{status.text}; {evidence.describe(which)}"
    if evidence.sufficient:
        return Status(status.code, text)
    return Status("partly", f"{text}: raise max_products (now {options['max_products']}) to show more")


def provenance(meter: Meter, options: dict[str, Any]) -> dict[str, Any]:
    """Return which operator, method, options and versions a result comes from."""
    operator = meter.operator
    return {
        "operator": type(operator).__name__,
        "shape": list(operator.shape),
        **recorded(operator),
        "dtype": str(operator.dtype).removeprefix("torch."),
        "rounding": operator.rounding,
        "device": str(operator.device),
        "options": options,
        "products": meter.report,
        "versions": {"curvscope": _own_version(), "torch": torch.__version__, "python": sys.version.split()[0]},
        "threads": torch.get_num_threads(),
    }


@cache
def _own_version() -> str:
    """Return the version of this package; reading it takes as long as 50 products of a small matrix."""
    return version("curvscope")


def _parameters(operator: Any) -> Parameters | None:
    """Return the named parameters of an operator that has them.

    Looked up on the class first: where there are none, ``getattr`` would compose a message with the nearest name, which takes
    as long as three products of a small matrix.
    """
    known = hasattr(type(operator), "parameters") or "parameters" in vars(operator)
    return getattr(operator, "parameters", None) if known else None
