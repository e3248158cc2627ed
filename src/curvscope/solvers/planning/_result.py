"""What a plan says: the cost of each method, side by side."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from curvscope.errors import InvalidArgument
from curvscope.solvers.results import Solution
from curvscope.system import Displayed, Hinted, as_text


@dataclass(frozen=True)
class MethodPlan:
    """Cost of one method.

    Attributes:
        method: its name.
        products: vectors multiplied, residuals included: (low, expected, high).
        stages: expected seconds by stage; "products" are all of them.
        seconds: (low, expected, high) in all.
        memory: peak resident bytes of the process.
        disk: bytes of the run; 0 without one.
        block_size: columns a product call.
        resident: whether its matrices lie in memory.
        accuracy: what to expect of its pairs.
        obstacle: why it cannot be done here; empty if it can.
    """

    method: str
    products: tuple[int, int, int] = (0, 0, 0)
    stages: dict[str, float] | None = None
    seconds: tuple[float, float, float] = (0.0, 0.0, 0.0)
    memory: int = 0
    disk: int = 0
    block_size: int = 0
    resident: bool = True
    accuracy: str = ""
    obstacle: str = ""


@dataclass(frozen=True, repr=False)
class Plan(Displayed, Hinted):
    """The methods side by side.

    Attributes:
        k: pairs that are asked for.
        size: D.
        methods: a plan each, the possible ones first.
        chosen: name of the method to take; empty if none fits.
        product_seconds: of one vector, in the widest block that was timed.
        workers: who compute the products.
        worker_memory: peak resident bytes of each of several workers.

    >>> import torch
    >>> import curvscope as cs
    >>> made = cs.plan(torch.diag(torch.arange(1.0, 101.0)), 3)
    >>> made.k, made.size, made[made.chosen].products
    (3, 100, (103, 103, 103))
    """

    k: int
    size: int
    methods: tuple[MethodPlan, ...]
    chosen: str
    product_seconds: float
    workers: int = 1
    worker_memory: int = 0

    def __getitem__(self, method: str) -> MethodPlan:
        for plan in self.methods:
            if plan.method == method:
                return plan
        raise InvalidArgument(f"no plan for method {method!r}: there are {', '.join(plan.method for plan in self.methods)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Plan:
        """Restore a plan from the result of :meth:`to_dict`."""
        return cls(**{**plain, "methods": tuple(MethodPlan(**made) for made in plain["methods"])})

    def compared(self, solution: Solution) -> dict[str, tuple[float, float]]:
        """Planned and actual products, seconds and peak memory (bytes) of a solve, without those of a later certificate."""
        plan, cost = self[solution.provenance["options"]["method"]], solution.cost
        return {
            "products": (plan.products[1], cost.products + min(solution.k, cost.certificate_products)),
            "seconds": (plan.seconds[1], cost.seconds - cost.stages.get("certificate", 0.0)),
            "peak memory": (plan.memory, cost.peak_bytes),
        }

    def __str__(self) -> str:
        """A table that a person reads."""
        rows = [f"{self.k} eigenpairs of a {self.size:,} x {self.size:,} operator; {self.product_seconds:.2g} s a product", ""]
        if self.workers > 1:
            rows[1:] = [f"products by {self.workers} workers, each with {as_text(self.worker_memory)} of memory", ""]
        rows.append(f"{'method':<11} {'products':>16} {'time':>22} {'memory':>10} {'disk':>10} {'block':>6}  accuracy")
        for plan in self.methods:
            if plan.obstacle:
                rows.append(f"{plan.method:<11} {plan.obstacle}")
                continue
            low, expected, high = plan.seconds
            times = f"{_duration(expected)} ({_duration(low)}-{_duration(high)})"
            few, usual, many = plan.products
            products = f"{usual}" if few == many else f"{usual} ({few}-{many})"
            disk = as_text(plan.disk) if plan.disk else "-"
            rows.append(
                f"{plan.method:<11} {products:>16} {times:>22} {as_text(plan.memory):>10} {disk:>10} {plan.block_size:>6}  "
                f"{plan.accuracy}"
            )
        return "\n".join([*rows, "", f"choice: {self.chosen or 'none fits: allow more memory, a run on disk, or a smaller k'}"])


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
