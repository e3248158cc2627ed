"""The one result of every eigensolver."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curvscope.certificates import Certificate, EndCertificate, EndTail, ProductNoise, TailNorm, eigenvalue_intervals
from curvscope.errors import InvalidArgument
from curvscope.measurement import EIGEN, TABLE, Place, read_result, rewrite_table, write_result
from curvscope.operators import Parameters
from curvscope.solvers.results._low_rank import LeftOut, LowRank
from curvscope.solvers.results._ordering import ORDERS
from curvscope.solvers.results._pairs import Pairs
from curvscope.store import parsing, printable
from curvscope.system import checked
from curvscope.tall import TallMatrix


@dataclass(frozen=True)
class Status:
    """Outcome of a solver. ``str(status)`` is advice.

    Attributes:
        code: "converged", "partly" (some pairs did not reach tol), "approximate" (a method without iteration; judge by the
            residuals).
        text: what that means here and what to do about it.
    """

    code: str
    text: str

    @property
    def converged(self) -> bool:
        """True if fresh products confirmed every pair to the tolerance."""
        return self.code == "converged"

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"


def read_numbers(plain: Any, count: int | None = None) -> Tensor:
    """The vector of numbers in a file, float64.

    Raises:
        ValueError: something else, or another number of them.
    """
    numbers = torch.tensor(plain, dtype=torch.float64, device="cpu")
    if numbers.ndim != 1 or count not in (None, len(numbers)):
        raise ValueError(f"numbers of shape {tuple(numbers.shape)} where {'a vector' if count is None else count} was expected")
    return numbers


def read_cost(plain: dict[str, Any]) -> Cost:
    """The cost in a file.

    Raises:
        ValueError: texts for numbers, or numbers for seconds by stage.
    """
    stages = plain["stages"]
    counts = [value for name, value in plain.items() if name != "stages"]
    wrong = [value for value in [*counts, *stages.values()] if not (isinstance(value, int | float) and abs(value) < 1e18)]
    if wrong:
        raise ValueError(f"{wrong[0]!r} where a number was expected")
    return Cost(**plain)


def read_status(table: dict[str, Any]) -> Status:
    """The status in a file; a text from elsewhere is shown by a terminal, not obeyed."""
    return Status(printable(table["code"]), printable(table["text"]))


@dataclass(frozen=True)
class Cost:
    """Cost of a solution.

    Attributes:
        products: vectors multiplied to find the pairs.
        certificate_products: further ones, to measure their residuals afresh and to search for missed pairs.
        passes: blocks of vectors multiplied, that is passes over the data, of both kinds.
        stages: wall seconds by stage; "products" is the share of all stages that went into products.
        peak_bytes: largest resident memory of the process up to the end of the solve.
        completeness_products: those of the certificate products that searched for missed pairs.
    """

    products: int
    certificate_products: int
    passes: int
    stages: dict[str, float]
    peak_bytes: int
    completeness_products: int = 0

    def __add__(self, other: Cost) -> Cost:
        """The cost of both, one after the other."""
        stages = {name: self.stages.get(name, 0.0) + other.stages.get(name, 0.0) for name in {**self.stages, **other.stages}}
        return Cost(
            self.products + other.products,
            self.certificate_products + other.certificate_products,
            self.passes + other.passes,
            stages,
            max(self.peak_bytes, other.peak_bytes),
            self.completeness_products + other.completeness_products,
        )

    @property
    def seconds(self) -> float:
        """Wall seconds in all."""
        return sum(seconds for name, seconds in self.stages.items() if name != "products")


@dataclass(frozen=True, repr=False)
class Solution(Pairs):
    """k eigenpairs of a Hermitian operator, with their residuals and their history.

    ``w, V = solution`` unpacks values and vectors; see :class:`.Pairs`.

    Attributes:
        eigenvalues: float64 (k,).
        eigenvectors: (D, k), orthonormal columns; the largest entry of each is positive.
        residual_norms: float64 (k,), ||A v - lambda v|| from fresh products.
        order: which pairs, and in which order: LM, LA, SA or BE; see :data:`.ordering.ORDERS`.
        status: how the solver ended; its text is advice.
        cost: products, passes, seconds, memory.
        provenance: operator fingerprint, method and options, seed, versions, dtype.
        diagnostics: numbers that tell of trouble: orthogonality, asymmetry of the projected matrix.
        parameters: names and shapes of the D parameters, for curvature operators.
        certificate: what was proven, after :func:`curvscope.certify`.
        sampling_intervals: (k, 2) float64, hold the eigenvalues of the *population's* matrix, after
            ``cs.population(H, solution).beside(solution)``; ``intervals`` are numerical and about these samples alone. None
            without them.
        basis: what ``eigsh(..., keep_basis=True)`` keeps to continue from; it is not saved.
    """

    eigenvalues: Tensor
    eigenvectors: TallMatrix
    residual_norms: Tensor
    order: str
    status: Status
    cost: Cost
    provenance: dict[str, Any] = field(default_factory=dict)
    diagnostics: dict[str, float] = field(default_factory=dict)
    parameters: Parameters | None = None
    certificate: Certificate | None = None
    sampling_intervals: Tensor | None = None
    basis: Any = field(default=None, repr=False, compare=False)

    @property
    def k(self) -> int:
        """Number of pairs."""
        return len(self.eigenvalues)

    @property
    def intervals(self) -> Tensor:
        """(k, 2) float64, numerical intervals: each row holds an eigenvalue of the operator.

        See :func:`.residuals.eigenvalue_intervals`. With a certificate the half-widths are residual^2 / gap
        where a gap is proven.
        """
        radii = self.residual_norms if self.certificate is None else self.certificate.radii
        return eigenvalue_intervals(self.eigenvalues, radii)

    @property
    def relative_residuals(self) -> Tensor:
        """residual_norms / |eigenvalues|; infinite where only the eigenvalue is zero."""
        return torch.nan_to_num(self.residual_norms / self.eigenvalues.abs(), nan=0.0, posinf=float("inf"))

    @checked
    def vector(self, i: int) -> dict[str, Tensor]:
        """Eigenvector i by parameter name, each tensor in its parameter's shape.

        Raises:
            InvalidArgument: i is out of range, or the operator was not built from a model.
        """
        if not -self.k <= i < self.k:
            raise InvalidArgument(f"there is no pair {i}: the solution has {self.k}, counted from 0")
        if self.parameters is None:
            raise InvalidArgument("this operator has no named parameters: use solution.eigenvectors.columns(i, i + 1)")
        i %= self.k
        return self.parameters.unflatten(self.eigenvectors.columns(i, i + 1)[:, 0])

    @checked
    def low_rank(self, damping: float = 0.0, *, positive: bool = False) -> LowRank:
        r"""V diag(eigenvalues) V\* + damping I: what these pairs say about the operator, as an operator with inverse and roots.

        For Laplace approximations (``damping`` is the prior precision, in the operator's scale: a mean loss over N terms means
        precision / N), influence functions and natural gradients.

        Args:
            damping: added to every eigenvalue, the zeros in the place of those that were not computed included.
            positive: leave out the pairs with negative eigenvalues: they count as zeros.

        Cost: none; the vectors are shared, not copied.

        Limits: the error, ||A - V diag V*||_2, is the largest |eigenvalue| left out. Relative to the damping it is the error of
        the inverse, which may be larger than the solution: ``low_rank(...).inverse_error`` bounds it for a certified solution,
        ``inverse_error_estimate`` is about what it is. :func:`curvscope.solve` with this operator as ``preconditioner`` solves
        with the whole matrix.

        >>> import curvscope as cs
        >>> solution = cs.eigsh(torch.diag(torch.tensor([3.0, 1.0])), k=2)
        >>> (solution.low_rank(1.0).inverse() @ torch.ones(2)).tolist()
        [0.25, 0.5]
        """
        values = self.eigenvalues.clamp(min=0) if positive else self.eigenvalues
        return LowRank(self.eigenvectors, values + damping, damping, left_out=self._left_out(values))

    def _left_out(self, values: Tensor) -> LeftOut:
        """Return what is known of ||A - V diag(values) V*||: what lies outside V, residuals, and values set to zero."""
        changed = float((values - self.eigenvalues).abs().max()) if self.k else 0.0
        is_whole = self.k == self.eigenvectors.shape[0]
        outside = 0.0 if is_whole else float(self.eigenvalues.abs().min()) if self.k else float("inf")
        estimate = max(outside if self.order == "LM" else float("inf"), changed) if not is_whole else changed
        if self.certificate is None:
            rest = 2**0.5 * float(self.residual_norms.norm())
            return LeftOut(changed + rest if is_whole else float("inf"), estimate)
        tail = self.certificate.tail.bound + self.certificate.noise.floor
        return LeftOut(max(tail, changed) + float(self.certificate.rho[-1]), min(estimate, max(tail, changed)))

    @checked
    def save(self, path: Place, *, overwrite: bool = False) -> None:
        """Write everything but ``basis`` to the new directory ``path``, whole or not at all; see :func:`curvscope.open`.

        Args:
            path: of the directory.
            overwrite: whether it takes the place of a solution that was saved there.

        Raises:
            RunConflict: ``path`` exists and is not to be overwritten, or holds something else than a saved solution.
        """
        write_result(path, EIGEN, self._table(), {"eigenvectors": self.eigenvectors}, overwrite=overwrite)

    def describe(self, path: Place) -> None:
        """Write everything but the vectors into a directory that holds these already."""
        rewrite_table(path, EIGEN, self._table())

    @checked
    def save_again(self, path: Place) -> None:
        """Update what :meth:`save` wrote, for example with a certificate; the vectors stay as they are.

        Raises:
            RunNotFound: no solution there. InvalidArgument: one with other eigenvalues.
        """
        if not torch.equal(Solution.load(path).eigenvalues, self.eigenvalues):
            raise InvalidArgument(f"{path} holds a solution with other eigenvalues: save this one to a new path")
        rewrite_table(path, EIGEN, self._table())

    @classmethod
    @checked
    def load(cls, path: Place) -> Solution:
        """Read what :meth:`save` wrote; the vectors are read into memory.

        Raises:
            RunNotFound: no solution there, or one with a part missing.
        """
        table, vectors = read_result(path, EIGEN)
        with parsing(Path(path) / TABLE):
            return cls._read(table, vectors)

    @classmethod
    def _read(cls, table: dict[str, Any], vectors: dict[str, TallMatrix]) -> Solution:
        named, proven = table["parameters"], table.get("certificate")
        if table["order"] not in ORDERS:
            raise ValueError(f"order {table['order']!r}")
        values = read_numbers(table["eigenvalues"])
        residuals = read_numbers(table["residual_norms"], len(values))
        return cls(
            eigenvalues=values,
            eigenvectors=vectors["eigenvectors"],
            residual_norms=residuals,
            order=table["order"],
            status=read_status(table["status"]),
            cost=read_cost(table["cost"]),
            provenance=table["provenance"],
            diagnostics=table["diagnostics"],
            parameters=named and Parameters(tuple(named), tuple(torch.Size(shape) for shape in named.values())),
            certificate=proven and _read_certificate(values, residuals, proven),
            sampling_intervals=_read_intervals(table.get("sampling_intervals"), len(values)),
        )

    def _table(self) -> dict[str, Any]:
        named, proven = self.parameters, self.certificate
        return {
            "order": self.order,
            "status": asdict(self.status),
            "cost": asdict(self.cost),
            "diagnostics": self.diagnostics,
            "provenance": self.provenance,
            "parameters": named and {name: list(shape) for name, shape in zip(named.names, named.shapes, strict=True)},
            "certificate": proven and _plain_certificate(proven),
            "eigenvalues": self.eigenvalues.tolist(),
            "residual_norms": self.residual_norms.tolist(),
            **({} if self.sampling_intervals is None else {"sampling_intervals": self.sampling_intervals.tolist()}),
        }

    def __str__(self) -> str:
        """A table that a person reads: the first pairs, and how the solve went."""
        rows = [f"{self.k} eigenpairs of a {self.eigenvectors.shape[0]}-parameter operator, {ORDERS[self.order]}", ""]
        sampled = self.sampling_intervals
        aside = "" if sampled is None else f"  {'numerical':>9}  sampling interval"
        rows.append(f"{'i':>5}  {'eigenvalue':>14}  {'residual':>9}  {'relative':>9}{aside}")
        for i in self._shown():
            if i is None:
                rows.append(f"{'...':>5}")
                continue
            value, residual = float(self.eigenvalues[i]), float(self.residual_norms[i])
            row = f"{i + 1:>5}  {value:>14.6e}  {residual:>9.1e}  {float(self.relative_residuals[i]):>9.1e}"
            if sampled is not None:
                half = float(self.intervals[i, 1] - self.intervals[i, 0]) / 2
                row += f"  {f'+-{half:.1e}':>9}  [{float(sampled[i, 0]):.4g}, {float(sampled[i, 1]):.4g}]"
            rows.append(row)
        cost = f"{self.spent_products()}, {self.cost.seconds:.1f} s"
        return "\n".join([*rows, "", str(self.status), self._completeness(), cost])

    def spent_products(self) -> str:
        """Products of the solve, and what the later ones were for, in words."""
        later, searched = (
            "residuals" if self.certificate is None else "residuals and certificates",
            self.cost.completeness_products,
        )
        search = f" + {searched} for completeness" if searched else ""
        return f"{self.cost.products} products + {self.cost.certificate_products - searched} for {later}{search}"

    def _completeness(self) -> str:
        if self.certificate is None:
            return "completeness: not certified (curvscope.certify says whether a pair was missed)"
        complete, tail = self.certificate.complete, self.certificate.tail
        which = {"LM": "largest by magnitude", "LA": "largest", "SA": "smallest", "BE": "outermost"}[self.order]
        more = f"; certify with steps={8 * tail.products} may prove more" if tail.failure and complete < self.k else ""
        if not complete:
            return f"completeness: none of the {self.k} pairs is proven to be among the {self.k} {which}{more}"
        unless = f", except with probability {tail.failure:g}" if tail.failure else ""
        first = (
            f"{complete} of the {self.k} pairs, from the ends,"
            if self.order == "BE"
            else f"the first {complete} of {self.k} pairs"
        )
        return f"completeness: {first} are certainly the {which}{unless}{more}"

    def _shown(self) -> list[int | None]:
        if self.k <= 12:
            return list(range(self.k))
        return [*range(10), None, self.k - 1]


def _read_intervals(plain: Any, count: int) -> Tensor | None:
    """The sampling intervals in a file.

    Raises:
        ValueError: something else, or another number of them.
    """
    if plain is None:
        return None
    numbers = torch.tensor(plain, dtype=torch.float64, device="cpu")
    if numbers.shape != (count, 2):
        raise ValueError(f"sampling intervals of shape {tuple(numbers.shape)} where ({count}, 2) was expected")
    return numbers


def _plain_certificate(certificate: Certificate) -> dict[str, Any]:
    measured = {"shifts": certificate.shifts, "couplings": certificate.couplings}
    lists = {name: None if numbers is None else numbers.tolist() for name, numbers in measured.items()}
    order = {"order": certificate.order} if isinstance(certificate, EndCertificate) else {}
    return {"tail": asdict(certificate.tail), "noise": asdict(certificate.noise), **lists, **order}


def _read_certificate(values: Tensor, residuals: Tensor, plain: dict[str, Any]) -> Certificate:
    lists = {name: plain.get(name) for name in ("shifts", "couplings")}
    measured = {
        name: None if numbers is None else torch.tensor(numbers, dtype=torch.float64, device="cpu")
        for name, numbers in lists.items()
    }
    noise = ProductNoise(**plain["noise"])
    if "order" in plain:
        return EndCertificate(values, residuals, EndTail(**plain["tail"]), noise, order=plain["order"], **measured)
    return Certificate(values, residuals, TailNorm(**plain["tail"]), noise, **measured)
