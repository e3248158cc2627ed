"""From Ritz values and vectors to a Solution: signs, fresh residuals, status, cost, provenance."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import psutil
import torch
from torch import Tensor

from curvscope.certify import residual_norms
from curvscope.operators import Parameters
from curvscope.solvers.meter import Meter
from curvscope.solvers.ordering import canonical_signs
from curvscope.solvers.solution import Cost, Solution, Status
from curvscope.tall import InMemory, orthogonality, polish

RESIDUAL_BLOCK = 32


@dataclass
class Pairs:
    """What a solver hands over: pairs in the wanted order, not yet certified.

    ``tol`` is what the residuals are held against; None for methods that do not iterate.
    """

    eigenvalues: Tensor
    eigenvectors: InMemory
    tol: float | None
    advice: str
    diagnostics: dict[str, float] = field(default_factory=dict)


def finish(meter: Meter, pairs: Pairs, *, which: str, options: dict[str, Any]) -> Solution:
    """Measure the residuals afresh and put everything into a :class:`Solution`.

    Cost: k products.
    """
    polish(pairs.eigenvectors)
    canonical_signs(pairs.eigenvectors)
    values = pairs.eigenvalues.double().cpu()
    found_with = meter.products
    with meter.stage("residuals", len(values)):
        residuals = residual_norms(meter.multiply, values, pairs.eigenvectors, block_size=RESIDUAL_BLOCK)
        defect = orthogonality(pairs.eigenvectors)
    return Solution(
        eigenvalues=values,
        eigenvectors=pairs.eigenvectors,
        residual_norms=residuals,
        order=which,
        status=status_of(values, residuals, pairs.tol, pairs.advice, unit=torch.finfo(meter.operator.dtype).eps),
        cost=Cost(found_with, meter.products - found_with, meter.passes, dict(meter.seconds), peak_resident_bytes()),
        provenance=provenance(meter, options),
        diagnostics={**pairs.diagnostics, "orthogonality": defect},
        parameters=_parameters(meter.operator),
    )


def is_converged(values: Tensor, residuals: Tensor, tol: float, *, scale: float, unit: float) -> Tensor:
    """Which pairs have residuals within tol |lambda|, or within what rounding allows: 10 u ||A||.

    ``scale`` stands for ||A||: the largest |lambda| known.
    """
    return residuals <= torch.clamp(tol * values.abs(), min=10 * unit * scale)


def peak_resident_bytes() -> int:
    """Largest resident memory of this process so far (where the system does not tell: the present one)."""
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):
        return int(memory.peak_wset)
    try:
        import resource
    except ImportError:
        return int(memory.rss)
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def status_of(values: Tensor, residuals: Tensor, tol: float | None, advice: str, *, unit: float) -> Status:
    """The status that fresh residuals earn; without ``tol`` the method did not iterate."""
    if tol is None:
        return Status("approximate", advice)
    scale = float(values.abs().max()) if len(values) else 0.0
    good = int(is_converged(values, residuals, tol, scale=scale, unit=unit).sum())
    if good == len(values):
        return Status("converged", f"all {good} residuals, measured with fresh products, are within tol={tol:g}")
    return Status("partly", f"{good} of {len(values)} residuals are within tol={tol:g}; {advice}")


def provenance(meter: Meter, options: dict[str, Any]) -> dict[str, Any]:
    """Which operator, method, options and versions a result comes from."""
    operator = meter.operator
    return {
        "operator": type(operator).__name__,
        "shape": list(operator.shape),
        "fingerprint": operator.fingerprint,
        "dtype": str(operator.dtype).removeprefix("torch."),
        "device": str(operator.device),
        "options": options,
        "products": getattr(operator, "strategy_report", {}),
        "versions": {"curvscope": version("curvscope"), "torch": torch.__version__, "python": platform.python_version()},
        "threads": torch.get_num_threads(),
    }


def _parameters(operator: Any) -> Parameters | None:
    return getattr(operator, "parameters", None)
