"""Results of functions of a matrix, with what is known of their error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from curvscope.measurement import Meter
from curvscope.solvers import Status
from curvscope.system import Displayed, Hinted


class Parts(NamedTuple):
    """Result of one block of right-hand sides.

    Attributes:
        value: (D, n) float64.
        estimates: float64 (n,), errors of truncation, estimated.
        bounds: float64 (n,), proven; infinite where nothing proves one.
        rounding: float64 (n,).
        outcome: "memory" or "budget", what ended the space before the tolerance; empty where nothing did.
    """

    value: Tensor
    estimates: Tensor
    bounds: Tensor
    rounding: Tensor
    outcome: str


@dataclass(frozen=True, repr=False)
class FunctionResult(Displayed, Hinted):
    """f(A + damping I) B, column by column with its error.

    Attributes:
        value: of the form of B: a vector (D,), a block (D, n), an array, or tensors by parameter name.
        norms: float64 (n,), ||f(A) B|| of each column.
        error_estimates: float64 (n,), error of each column where the spectrum is where the iteration has seen it, rounding of
            the products included.
        error_bounds: float64 (n,), the same where the spectrum is known to be; infinite where nothing is known of an end.
        rounding: float64 (n,), the part of both that is rounding of the products.
        proof: what is known of the spectrum, in words; empty where nothing is.
        status: how the iteration ended; its text is advice.
        products: vectors multiplied.
        passes: blocks of products, each a pass over the data.
        seconds: that it took.

    >>> import curvscope as cs
    >>> found = cs.function(torch.diag(torch.tensor([4.0, 1.0])).double(), torch.ones(2).double(), "sqrt")
    >>> [round(entry, 6) for entry in found.value.tolist()], found.converged
    ([2.0, 1.0], True)
    """

    _instead: ClassVar[Mapping[str, str]] = {
        "x": "result.value",
        "errors": "result.error_estimates, or result.error_bounds",
        "error": "result.error_estimates, or result.error_bounds",
        "info": "result.status",
        "num_products": "result.products",
    }

    value: Any
    norms: Tensor
    error_estimates: Tensor
    error_bounds: Tensor
    rounding: Tensor
    proof: str
    status: Status
    products: int
    passes: int
    seconds: float

    @property
    def converged(self) -> bool:
        """True if the truncation error of every column is within the tolerance, or within rounding."""
        return self.status.converged

    @property
    def relative_errors(self) -> Tensor:
        """Proven errors over the norms of the columns, estimated ones where none is proven; 0 where the result is zero."""
        errors = torch.where(torch.isfinite(self.error_bounds), self.error_bounds, self.error_estimates)
        return torch.where(self.norms > 0, errors / self.norms.clamp(min=1e-300), 0.0)

    def with_value(self, value: Any) -> FunctionResult:
        """Return the same with the value in another form."""
        return replace(self, value=value)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """``value`` as a NumPy array; of tensors by name, laid end to end."""
        values = list(self.value.values()) if isinstance(self.value, Mapping) else self.value
        if isinstance(values, list):
            values = torch.cat([part.reshape(-1) for part in values])
        return np.array(values.cpu().numpy() if isinstance(values, Tensor) else values, dtype=dtype)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON; without the value."""
        return {
            "norms": self.norms.tolist(),
            "error_estimates": self.error_estimates.tolist(),
            "error_bounds": [bound if math.isfinite(bound) else None for bound in self.error_bounds.tolist()],
            "rounding": self.rounding.tolist(),
            "proof": self.proof,
            "status": {"code": self.status.code, "text": self.status.text},
            "products": self.products,
        }

    def __str__(self) -> str:
        count = len(self.norms)
        worst = float(self.relative_errors.max()) if count else 0.0
        is_proven = bool(torch.isfinite(self.error_bounds).all())
        rows = [f"function of a matrix on {count} vector{'s' if count != 1 else ''}: {self.status}"]
        how = f"proven by: {self.proof}" if is_proven else "estimated; spectrum=(low, high) or a certified solution proves one"
        rows.append(f"relative errors: at most {worst:.1e} ({how})")
        rows.append(f"{self.products} products in {self.passes} passes, {self.seconds:.1f} s")
        return "\n".join(rows)


def gathered(parts: list[Parts], columns: Tensor, proof: str, tol: float, meter: Meter) -> FunctionResult:
    """Return the result of all blocks, its errors those of the value as it is handed over."""
    value = torch.cat([part.value for part in parts], dim=1) if parts else torch.zeros_like(columns).double()
    empty = torch.zeros(0, dtype=torch.float64, device="cpu")
    estimates, bounds, rounding = (
        torch.cat([getattr(part, name) for part in parts]) if parts else empty for name in ("estimates", "bounds", "rounding")
    )
    norms = torch.linalg.vector_norm(value, dim=0).cpu()
    rounding = rounding + torch.finfo(columns.dtype).eps * norms
    relative = torch.where(norms > 0, (estimates + rounding) / norms.clamp(min=1e-300), 0.0)
    outcomes = {part.outcome for part in parts} - {""}
    worst = float(relative.max()) if len(relative) else 0.0
    if not outcomes:
        limited = len(relative) and bool((rounding > tol * norms).any())
        more = (
            f"; rounding of the products adds up to {float((rounding / norms.clamp(min=1e-300)).max()):.1e}" if limited else ""
        )
        status = Status("converged", f"every truncation error is at most {tol:g} of its column or rounding{more}")
    else:
        why = {
            "memory": "the basis does not fit into more memory: allow more, use more damping, or a smaller block_size",
            "budget": "max_products were used up: allow more, or use more damping",
        }
        status = Status("partly", f"the error may be {worst:.1e}: {why['memory' if 'memory' in outcomes else 'budget']}")
    return FunctionResult(
        value=value,
        norms=norms,
        error_estimates=estimates + rounding,
        error_bounds=bounds + rounding,
        rounding=rounding,
        proof=proof,
        status=status,
        products=meter.products,
        passes=meter.passes,
        seconds=sum(meter.seconds.values()),
    )
