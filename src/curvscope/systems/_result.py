"""Solutions of linear systems, with what is known of their error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from curvscope.solvers import Cost, Status
from curvscope.system import Displayed, Hinted


@dataclass(frozen=True, repr=False)
class LinearSolution(Displayed, Hinted):
    """X with (A + damping I) X = B, column by column with its fresh residual and, where it is proven, a bound of its error.

    Attributes:
        x: of the form of B: a vector (D,), a block (D, n), an array, or tensors by parameter name.
        residual_norms: float64 (n,), ||B - (A + damping I) X|| of each column, from fresh products.
        relative_residuals: float64 (n,), over ||B||; 0 where B is zero.
        error_bounds: float64 (n,), each column of X is within this of the exact solution; infinite where nothing proves it.
        distance: lower bound for the least magnitude of an eigenvalue of A + damping I; 0 where nothing proves one.
        proof: what proves it, in words; empty where nothing does.
        inertia: what the iteration saw of the signs of A + damping I: "positive definite" (proven), "positive so far",
            "indefinite" (proven by a quotient), "singular" (to rounding).
        status: how the iteration ended; its text is advice.
        method: "cg" or "minres", the one that ended.
        cost: products of the iteration, those of residuals as ``certificate_products``.

    >>> import curvscope as cs
    >>> found = cs.solve(torch.diag(torch.tensor([4.0, 1.0])).double(), torch.ones(2).double(), damping=1.0, tol=1e-9)
    >>> [round(entry, 6) for entry in found.x.tolist()], found.converged, found.method
    ([0.2, 0.5], True, 'minres')
    """

    _instead: ClassVar[Mapping[str, str]] = {
        "info": "result.status",
        "solution": "result.x",
        "X": "result.x",
        "errors": "result.error_bounds",
        "residuals": "result.residual_norms",
        "iterations": "result.cost.passes",
        "nit": "result.cost.passes",
    }

    x: Any
    residual_norms: Tensor
    relative_residuals: Tensor
    error_bounds: Tensor
    distance: float
    proof: str
    inertia: str
    status: Status
    method: str
    cost: Cost

    @property
    def converged(self) -> bool:
        """True if fresh products confirmed every column to the tolerance."""
        return self.status.converged

    @property
    def value(self) -> Any:
        """Short for ``x``."""
        return self.x

    @property
    def products(self) -> int:
        """Vectors multiplied in all, those of residuals included."""
        return self.cost.products + self.cost.certificate_products

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """``x`` as a NumPy array; of tensors by name, laid end to end."""
        values = list(self.x.values()) if isinstance(self.x, Mapping) else self.x
        if isinstance(values, list):
            values = torch.cat([part.reshape(-1) for part in values])
        return np.array(values.cpu().numpy() if isinstance(values, Tensor) else values, dtype=dtype)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON; without x."""
        return {
            "residual_norms": self.residual_norms.tolist(),
            "relative_residuals": self.relative_residuals.tolist(),
            "error_bounds": [bound if bound < float("inf") else None for bound in self.error_bounds.tolist()],
            "distance": self.distance,
            "proof": self.proof,
            "inertia": self.inertia,
            "status": {"code": self.status.code, "text": self.status.text},
            "method": self.method,
            "products": self.products,
        }

    def __str__(self) -> str:
        count = len(self.residual_norms)
        worst = float(self.relative_residuals.max()) if count else 0.0
        rows = [f"{count} right-hand side{'s' if count != 1 else ''} by {self.method}: {self.status}"]
        rows.append(f"relative residuals: at most {worst:.1e}, from fresh products")
        if self.proof:
            rows.append(f"errors: at most {float(self.error_bounds.max()) if count else 0.0:.3g} (proven by: {self.proof})")
        else:
            rows.append(
                "errors: not bounded, nothing proves how far the spectrum is from -damping (a Gauss-Newton or Fisher matrix "
                "with damping > 0 does, and so does a certified solution in deflate= or spectrum=)"
            )
        rows.append(f"A + damping I: {self.inertia}")
        rows.append(
            f"{self.cost.products} products + {self.cost.certificate_products} for residuals, {self.cost.seconds:.1f} s"
        )
        return "\n".join(rows)
