"""Blocks of linear systems on their way: iterations from fresh residuals, until these are small or nothing helps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from curvscope.measurement import Meter, blocks
from curvscope.operators.base import Operator
from curvscope.solvers import Cost, Status
from curvscope.system import peak_resident_bytes
from curvscope.systems._cg import block_cg
from curvscope.systems._distance import Proven
from curvscope.systems._inner import Preconditioner
from curvscope.systems._iteration import Iterated
from curvscope.systems._minres import block_minres
from curvscope.systems._result import LinearSolution

ROUNDS = 12
"""Most restarts from fresh residuals, each of which gains what the rounding of the products allows."""
GAIN = 0.5
"""Factor by which a restart has to reduce a residual; less is rounding."""
MARGIN = 0.05
"""Most that an iteration's own residuals have to be below the tolerance, so that fresh ones, rounded otherwise, are so too."""


@dataclass(frozen=True)
class Request:
    """What is solved, and how."""

    operator: Operator
    damping: float
    tol: float
    method: str
    falls_back: bool
    preconditioner: Preconditioner | None
    block_size: int
    budget: int | None


@dataclass
class Systems:
    """A block of systems on its way: iterations, each from fresh residuals."""

    meter: Meter
    request: Request
    right: Tensor
    x: Tensor = field(init=False)
    norms: Tensor = field(init=False)
    method: str = field(init=False)
    fresh: int = 0
    low: float = math.inf
    high: float = -math.inf
    is_singular: bool = False
    is_indefinite: bool = False
    outcomes: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.x = torch.zeros_like(self.right)
        self.sizes = torch.linalg.vector_norm(self.right, dim=0).cpu()
        self.norms, self.method = self.sizes.clone(), self.request.method

    def run(self) -> None:
        """Solve for all columns, ``block_size`` at a time."""
        count = self.right.shape[1]
        budget = 10 * self.right.shape[0] * max(1, count) if self.request.budget is None else self.request.budget
        for start, stop in blocks(count, self.request.block_size):
            self._columns(start, stop, budget)

    def _columns(self, start: int, stop: int, budget: int) -> None:
        residual = self.right[:, start:stop].clone()
        targets = self.request.tol * self.sizes[start:stop]
        norms = self.sizes[start:stop].clone()
        for _ in range(ROUNDS):
            still = (norms > targets).nonzero().flatten()
            left = budget - (self.meter.products - self.fresh)
            if not len(still):
                break
            if left < len(still):
                self.outcomes.add("budget")
                break
            found = self._iterate(residual[:, still], self._closer * targets[still], left)
            dtype = self.meter.operator.dtype
            before, x = norms[still].clone(), (self.x[:, start + still] + found.x).to(dtype).double()  # as it is handed over
            fresh = self.right[:, start + still] - self._fresh(x)
            after = torch.linalg.vector_norm(fresh, dim=0).cpu()
            better = after < before  # an iteration that broke down leaves a column as it was
            self.x[:, start + still[better]], residual[:, still[better]] = x[:, better], fresh[:, better]
            norms[still[better]] = after[better]
            if self._ends(found, residual[:, still], norms[still], targets[still], before):
                break
        self.norms[start:stop] = norms

    def _iterate(self, residual: Tensor, targets: Tensor, budget: int) -> Iterated:
        iterate = block_cg if self.method == "cg" else block_minres
        unit = self.meter.operator.rounding
        found = iterate(self._multiply, residual, targets, budget, self.request.preconditioner, unit)
        self.low, self.high = min(self.low, found.low), max(self.high, found.high)
        return found

    def _ends(self, found: Iterated, residual: Tensor, norms: Tensor, targets: Tensor, before: Tensor) -> bool:
        """Return whether another iteration is of no use, and note why; CG gives way to MINRES where it may."""
        if found.outcome in ("indefinite", "singular") and self.method == "cg":
            self.is_indefinite |= found.outcome == "indefinite"
            self.is_singular |= found.outcome == "singular" and not self.request.falls_back
            if self.request.falls_back:
                self.method = "minres"
                return False
            self.outcomes.add(found.outcome)
            return True
        still = norms > targets
        if not bool(still.any()):
            return False
        if found.outcome == "singular" and self._is_least(residual[:, still], norms[still]):
            self.is_singular = True
            self.outcomes.add("singular")
            return True
        if found.outcome == "budget":
            self.outcomes.add("budget")
            return True
        if bool((norms[still] > GAIN * before[still]).all()):
            self.outcomes.add("rounding")
            return True
        return False

    def _is_least(self, residual: Tensor, norms: Tensor) -> bool:
        """Return whether the matrix maps a residual to next to nothing: it is least, and no x reaches B."""
        image = torch.linalg.vector_norm(self._fresh(residual), dim=0).cpu()
        return bool((image <= 10 * math.sqrt(self.meter.operator.rounding) * self._norm * norms).any())

    @property
    def _closer(self) -> float:
        """Share of the tolerance that leaves room for some units of rounding, relative to the right-hand side."""
        return 1 - min(MARGIN, 10 * self.meter.operator.rounding / max(self.request.tol, 1e-300))

    _norm: float = 0.0

    def _multiply(self, block: Tensor) -> Tensor:
        operator = self.meter.operator
        made = self.meter.multiply(block.to(operator.dtype)).double() + self.request.damping * block
        ratios = torch.linalg.vector_norm(made, dim=0) / torch.linalg.vector_norm(block, dim=0).clamp(min=1e-300)
        self._norm = max(self._norm, float(ratios.max()))
        return made

    def _fresh(self, block: Tensor) -> Tensor:
        before = self.meter.products
        made = self._multiply(block)
        self.fresh += self.meter.products - before
        return made

    def result(self, x: Any, proven: Proven) -> LinearSolution:
        """Everything that is known of the solution."""
        relative = torch.where(self.sizes > 0, self.norms / self.sizes, 0.0)
        unit = self.meter.operator.rounding
        lengths = torch.linalg.vector_norm(self.x, dim=0).cpu()
        rounding = (10 + math.sqrt(self.right.shape[0])) * unit * (2 * self._norm * lengths + self.sizes)
        distance = proven.distance
        bounds = (self.norms + rounding) / distance if distance else torch.full_like(self.norms, math.inf)
        seconds = dict(self.meter.seconds)
        cost = Cost(self.meter.products - self.fresh, self.fresh, self.meter.passes, seconds, peak_resident_bytes())
        return LinearSolution(
            x=x,
            residual_norms=self.norms,
            relative_residuals=relative,
            error_bounds=bounds,
            distance=distance,
            proof=proven.proof,
            inertia=self._inertia(proven),
            status=self._status(relative),
            method=self.method,
            cost=cost,
        )

    def _inertia(self, proven: Proven) -> str:
        noise = 1e3 * self.meter.operator.rounding * max(abs(self.high), abs(self.low)) if math.isfinite(self.low) else 0.0
        if self.is_singular:
            return "singular"
        if self.is_indefinite or self.low < -noise:
            return "indefinite"
        return "positive definite" if proven.distance > 0 and proven.is_positive else "positive so far"

    def _status(self, relative: Tensor) -> Status:
        tol, worst = self.request.tol, float(relative.max()) if len(relative) else 0.0
        if worst <= tol:
            return Status("converged", f"every residual is at most {tol:g} of its right-hand side, by fresh products")
        done = int((relative <= tol).sum())
        texts = {
            "indefinite": f"the matrix is not positive definite: a quotient of {self.low:.3g} was met; use method='minres', or "
            f"more damping than {self.request.damping - self.low:.3g}",
            "singular": "the matrix is singular to rounding and B is not in its range: "
            + ("x is a" if self.method == "minres" else "method='minres' finds a")
            + " least-squares solution; use damping > 0 for one that is stable",
            "budget": "max_products were used up; allow more, deflate known pairs, or use more damping",
            "rounding": "products round more than tol asks for: use the operator in float64, or a larger tol",
        }
        why = next((text for code, text in texts.items() if code in self.outcomes), texts["rounding"])
        code = next((code for code in ("indefinite", "singular") if code in self.outcomes), "partly")
        return Status(code, f"{done} of {len(relative)} columns reached tol, the worst is at {worst:.1e}: {why}")
