"""The Hessian beside its Gauss-Newton part: how much is left, and whether the top spaces agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from curvscope.errors import InvalidArgument
from curvscope.estimators import Estimate, NormBound, frobenius_norm, spectral_norm
from curvscope.operators import Composable
from curvscope.solvers import Solution, eigsh
from curvscope.subspaces._curve import OverlapCurve
from curvscope.subspaces._overlap import overlap
from curvscope.system import Displayed, Hinted, Progress, checked


@dataclass(frozen=True, repr=False)
class Splitting(Displayed, Hinted):
    r"""H = G + E, measured.

    Attributes:
        hessian_norm: ||H||_F.
        remainder_norm: ||E||_F.
        remainder_bound: ||E||_2, which by Weyl's inequality bounds |lambda_i(H) - lambda_i(G)| for every i.
        solutions: the top-k pairs of each matrix, by name: "hessian", "ggn" and those given.
        overlaps: of each other top space with the Hessian's, by name.

    >>> import torch, curvscope as cs
    >>> _ = torch.manual_seed(0)
    >>> model, data = torch.nn.Linear(3, 2), [(torch.randn(8, 3), torch.arange(8) % 2)]
    >>> loss = torch.nn.CrossEntropyLoss()
    >>> found = cs.splitting(cs.hessian(model, loss, data), cs.ggn(model, loss, data), k=2)
    >>> found.weyl_holds, found.share < 1e-5    # a linear model: H = G
    (True, True)
    """

    hessian_norm: Estimate
    remainder_norm: Estimate
    remainder_bound: NormBound
    solutions: Mapping[str, Solution]
    overlaps: Mapping[str, OverlapCurve]

    _instead: ClassVar[Mapping[str, str]] = {
        "overlap": "splitting.overlaps['ggn']",
        "ratio": "splitting.share",
        "remainder": "splitting.remainder_norm and splitting.remainder_bound",
        "H": "splitting.solutions['hessian']",
        "G": "splitting.solutions['ggn']",
        "save": "splitting.solutions['hessian'].save(path), and json.dumps(splitting.to_dict())",
        "to_pandas": "splitting.overlaps['ggn'].to_pandas()",
    }

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON; without the solutions."""
        return {
            "share": self.share,
            "hessian_norm": self.hessian_norm.to_dict(),
            "remainder_norm": self.remainder_norm.to_dict(),
            "remainder_bound": self.remainder_bound.to_dict(),
            "overlaps": {name: curve.to_dict() for name, curve in self.overlaps.items()},
        }

    @property
    def share(self) -> float:
        """||E||_F / ||H||_F."""
        return self.remainder_norm.value / self.hessian_norm.value if self.hessian_norm.value else 0.0

    @property
    def weyl_holds(self) -> bool:
        """True if |lambda_i(H) - lambda_i(G)| <= ||E||_2 for the largest pairs that both solutions have.

        For positive eigenvalues in descending order; it must, up to the residuals.
        """
        ours, theirs = (
            self.solutions[name].eigenvalues[self.solutions[name].eigenvalues > 0].sort(descending=True).values
            for name in ("hessian", "ggn")
        )
        count = min(len(ours), len(theirs))
        slack = max(float(solution.residual_norms.max()) for solution in self.solutions.values())
        return bool(((ours[:count] - theirs[:count]).abs() <= self.remainder_bound.upper + slack).all())

    def __str__(self) -> str:
        rows = [f"||E||_F / ||H||_F = {self.share:.3g}, ||E||_2 {self.remainder_bound}"]
        rows += [
            f"top-{len(curve)} space of {name}: overlap {curve.at(len(curve)):.3f}" for name, curve in self.overlaps.items()
        ]
        return "\n".join(rows)


@checked
def splitting(
    hessian: Composable,
    ggn: Composable,
    *,
    k: int = 10,
    others: Mapping[str, Composable] | None = None,
    tol: float = 1e-3,
    max_products: int = 100,
    seed: int = 0,
    progress: Progress = None,
) -> Splitting:
    """Compare a Hessian with its Gauss-Newton matrix, and the top spaces of further matrices with its own.

    Args:
        hessian: H, of a model and its data.
        ggn: G, of the same.
        k: dimension of the top spaces.
        others: further matrices by name, for example ``{"Fisher": cs.empirical_fisher(...)}``.
        tol: of the eigenpairs.
        max_products: for each Frobenius norm.
        seed: of everything random.
        progress: see :data:`.progress.Progress`.

    Cost: an ``eigsh`` for each matrix; 2 max_products + about 40 products for the norms; those of E are one of H and one of G.

    Raises:
        InvalidArgument: matrices on different parameters.

    >>> import torch
    >>> from torch import nn
    >>> from curvscope.operators import ggn, hessian
    >>> setting = nn.Sequential(nn.Linear(3, 2)), nn.MSELoss(), [(torch.randn(9, 3), torch.randn(9, 2))]
    >>> found = splitting(hessian(*setting), ggn(*setting), k=2)    # linear in the parameters: H = G
    >>> found.share < 1e-6, round(found.overlaps["ggn"].at(2), 4)
    (True, 1.0)
    """
    matrices = {"hessian": hessian, "ggn": ggn, **(others or {})}
    for name, operator in matrices.items():
        if operator.parameters != hessian.parameters:
            raise InvalidArgument(f"{name} is on other parameters than the Hessian: build all with the same params=...")
    remainder = hessian - ggn
    solutions = {
        name: eigsh(operator, k, method="krylov", tol=tol, seed=seed, progress=progress) for name, operator in matrices.items()
    }
    return Splitting(
        frobenius_norm(hessian, deflate=solutions["hessian"], max_products=max_products, seed=seed, progress=progress),
        frobenius_norm(remainder, max_products=max_products, seed=seed, progress=progress),
        spectral_norm(remainder, seed=seed, progress=progress),
        solutions,
        {name: overlap(solutions["hessian"], solution) for name, solution in solutions.items() if name != "hessian"},
    )
