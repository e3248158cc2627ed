"""Singular triplets with residuals and history: the result of every sketched SVD."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from curvscope.measurement import SINGULAR, TABLE, Place, read_result, rewrite_table, write_result
from curvscope.solvers.results._solution import Cost, Status, read_cost, read_numbers, read_status
from curvscope.store import parsing
from curvscope.system import Displayed, Hinted, checked
from curvscope.tall import TallMatrix


@dataclass(frozen=True, repr=False)
class SingularSolution(Displayed, Hinted):
    """k singular triplets of an m x n operator: A ~ U diag(S) V*.

    Attributes:
        U: (m, k), orthonormal columns; the largest entry of each is real and positive.
        S: float64 (k,), in descending order.
        V: (n, k), orthonormal columns.
        residual_norms: float64 (k,), sqrt((||A v - s u||^2 + ||A* u - s v||^2) / 2) from fresh products: within that distance
            of s there is a singular value (or minus one) of A.
        status: how the solver ended; its text is advice.
        cost: products (with A and with A*), passes, seconds, memory.
        provenance: operator fingerprint, method and options, seed, versions, dtype.
        diagnostics: numbers that tell of trouble.

    >>> import curvscope as cs
    >>> found = cs.svds(torch.diag(torch.tensor([3.0, 2.0, 1.0])), k=2)
    >>> [round(float(s), 4) for s in found.S], found.U.shape, found.status.converged
    ([3.0, 2.0], (3, 2), True)
    """

    U: TallMatrix
    S: Tensor
    V: TallMatrix
    residual_norms: Tensor
    status: Status
    cost: Cost
    provenance: dict[str, Any] = field(default_factory=dict)
    diagnostics: dict[str, float] = field(default_factory=dict)

    _instead: ClassVar[Mapping[str, str]] = {
        "Vh": "solution.V.T, of the (n, k) right singular vectors",
        "Vt": "solution.V.T, of the (n, k) right singular vectors",
        "singular_values": "solution.S",
        "values": "solution.S",
        "left": "solution.U",
        "right": "solution.V",
    }

    def __len__(self) -> int:
        return len(self.S)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        """(U, S, V), to unpack; V is (n, k), not its adjoint."""
        yield from (self.U, self.S, self.V)

    @property
    def residuals(self) -> Tensor:
        """Short for ``residual_norms``."""
        return self.residual_norms

    @property
    def k(self) -> int:
        """Number of triplets."""
        return len(self.S)

    @property
    def relative_residuals(self) -> Tensor:
        """residual_norms / S; infinite where only S is zero."""
        return torch.nan_to_num(self.residual_norms / self.S, nan=0.0, posinf=float("inf"))

    @checked
    def save(self, path: Place, *, overwrite: bool = False) -> None:
        """Write everything to the new directory ``path``, whole or not at all; see :func:`curvscope.open`.

        Args:
            path: of the directory.
            overwrite: whether it takes the place of a solution that was saved there.

        Raises:
            RunConflict: ``path`` exists and is not to be overwritten, or holds something else than a saved solution.
        """
        write_result(path, SINGULAR, self._table(), {"U": self.U, "V": self.V}, overwrite=overwrite)

    def describe(self, path: Place) -> None:
        """Write everything but the vectors into a directory that holds these already."""
        rewrite_table(path, SINGULAR, self._table())

    def _table(self) -> dict[str, Any]:
        return {
            "status": asdict(self.status),
            "cost": asdict(self.cost),
            "diagnostics": self.diagnostics,
            "provenance": self.provenance,
            "S": self.S.tolist(),
            "residual_norms": self.residual_norms.tolist(),
        }

    @classmethod
    @checked
    def load(cls, path: Place) -> SingularSolution:
        """Read what :meth:`save` wrote; the vectors are read into memory.

        Raises:
            RunNotFound: no such solution there, or one with a part missing.
        """
        table, vectors = read_result(path, SINGULAR)
        with parsing(Path(path) / TABLE):
            return cls._read(table, vectors)

    @classmethod
    def _read(cls, table: dict[str, Any], vectors: dict[str, TallMatrix]) -> SingularSolution:
        values = read_numbers(table["S"])
        return cls(
            U=vectors["U"],
            S=values,
            V=vectors["V"],
            residual_norms=read_numbers(table["residual_norms"], len(values)),
            status=read_status(table["status"]),
            cost=read_cost(table["cost"]),
            provenance=table["provenance"],
            diagnostics=table["diagnostics"],
        )

    def __str__(self) -> str:
        """A table that a person reads: the first triplets, and how the solve went."""
        rows = [f"{self.k} singular triplets of a {self.U.shape[0]} x {self.V.shape[0]} operator, largest first", ""]
        rows.append(f"{'i':>5}  {'singular value':>14}  {'residual':>9}  {'relative':>9}")
        for i in range(min(self.k, 12)):
            value, residual, relative = (float(x[i]) for x in (self.S, self.residual_norms, self.relative_residuals))
            rows.append(f"{i + 1:>5}  {value:>14.6e}  {residual:>9.1e}  {relative:>9.1e}")
        if self.k > 12:
            rows.append(f"{'...':>5}")
        searched = self.cost.completeness_products
        search = f" + {searched} for completeness" if searched else ""
        residuals = f"{self.cost.certificate_products - searched} for residuals"
        cost = f"{self.cost.products} products + {residuals}{search}, {self.cost.seconds:.1f} s"
        return "\n".join([*rows, "", str(self.status), cost])
