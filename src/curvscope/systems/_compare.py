"""How far an approximation of a curvature matrix is from the matrix: in norm, in its top space, as an inverse, by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from curvscope.certificates import FrobeniusEstimate, Samples
from curvscope.errors import InvalidArgument
from curvscope.estimators import check_solution
from curvscope.measurement import WIDEST_BLOCK, blocks, draw
from curvscope.operators import Diagonal, as_operator
from curvscope.operators.base import Operator
from curvscope.solvers import Solution, eigsh
from curvscope.solvers.driver import check_k, check_operator, metered
from curvscope.solvers.results import LowRank
from curvscope.system import Displayed, Hinted, Progress, checked, frame
from curvscope.systems._solve import solve
from curvscope.tall import InMemory, TallMatrix, gram

ROLE = "compare"
VECTORS = 4
"""Random vectors that inverses are compared on, where none are given."""


@dataclass(frozen=True, repr=False)
class Comparison(Displayed, Hinted):
    """An approximation P beside the matrix A that it stands for.

    Attributes:
        frobenius: ||A||_F and ||A - P||_F with standard errors; ``.relative``, ``.bounds(confidence)``.
        overlap: float64 (k,), for j = 1..k the share of the top-j space of A in the top-j space of P, by magnitude.
        layers: ||rows of A - P|| / ||rows of A||, for each parameter tensor; empty for operators without names.
        inverse_errors: float64 (n,), ||(P + damping I)^-1 b - (A + damping I)^-1 b|| / ||(A + damping I)^-1 b|| for given
            vectors; empty without ``damping``.
        best_relative: ||A - A_k||_F / ||A||_F of the best approximation of rank k, estimated; what a perfect one of rank k has.
        products: with A.

    >>> import curvscope as cs
    >>> A = torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.5])).double()
    >>> found = cs.compare(A, A.diagonal(), k=2)
    >>> found.frobenius.relative, found.overlap.tolist()
    (0.0, [1.0, 1.0])
    """

    _instead: ClassVar[Mapping[str, str]] = {
        "error": "comparison.frobenius.error",
        "relative": "comparison.frobenius.relative",
        "captured": "comparison.overlap",
        "by_layer": "comparison.layers",
    }

    frobenius: FrobeniusEstimate
    overlap: Tensor
    layers: dict[str, float]
    inverse_errors: Tensor
    best_relative: float
    products: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "frobenius": self.frobenius.to_dict(),
            "overlap": self.overlap.tolist(),
            "layers": dict(self.layers),
            "inverse_errors": self.inverse_errors.tolist(),
            "best_relative": self.best_relative,
            "products": self.products,
        }

    def to_pandas(self) -> Any:
        """A data frame with the overlap for each k; needs pandas."""
        return frame({"overlap": self.overlap.tolist()}, list(range(1, len(self.overlap) + 1)))

    def __str__(self) -> str:
        low, high = self.frobenius.bounds(0.95)
        norm, k = self.frobenius.norm or 1.0, len(self.overlap)
        rows = [
            f"error in the Frobenius norm: {self.frobenius.relative:.3g} of ||A||_F, between {low / norm:.3g} and "
            f"{high / norm:.3g} with 95 % confidence",
            f"the best approximation of rank {k} has {self.best_relative:.3g}",
            "overlap of the top spaces: "
            + ", ".join(f"{float(self.overlap[j - 1]):.3g} (k = {j})" for j in sorted({1, (k + 1) // 2, k})),
        ]
        if len(self.inverse_errors):
            worst, middle = float(self.inverse_errors.max()), float(self.inverse_errors.median())
            rows.append(f"error of the inverse on {len(self.inverse_errors)} vectors: median {middle:.3g}, worst {worst:.3g}")
        if self.layers:
            rows.append("by layer:")
            shown = sorted(self.layers.items(), key=lambda item: -item[1])
            rows += [f"  {name:<32.32} {error:.3g}" for name, error in shown[:16]]
            rows += [f"  and {len(shown) - 16} more"] if len(shown) > 16 else []
        return "\n".join([*rows, f"{self.products} products"])


@checked
def compare(  # noqa: PLR0913 -- a public function: request and resources, by keyword
    operator: Any,
    approximation: Any,
    *,
    k: int | None = None,
    num_probes: int = 30,
    damping: float | None = None,
    vectors: Any = None,
    solution: Solution | None = None,
    tol: float = 1e-3,
    seed: int = 0,
    executor: Any = None,
    progress: Progress = None,
) -> Comparison:
    """Measure how far an approximation is from a curvature matrix.

    Args:
        operator: A, D x D, symmetric and real; anything that :func:`curvscope.as_operator` takes.
        approximation: P: a diagonal (D,), tensors by parameter name (a diagonal, such as Adam's second moment), a solution of
            :func:`curvscope.eigsh` (its low rank), ``solution.low_rank(...)``, or anything for ``as_operator``, such as the
            K-FAC of curvlinops or another curvature operator.
        k: pairs of A and of P whose spaces are compared; None: 10, or D where that is less.
        num_probes: Gaussian probes for the Frobenius norms.
        damping: compare the inverses of A and P with so much added to their diagonals; None: no inverses.
        vectors: (D,) or (D, n), that the inverses are compared on; None: 4 of the probes.
        solution: k or more largest pairs of A by magnitude; None: they are computed.
        tol: of the pairs and of the linear systems.
        seed: of the probes and of the pairs.
        executor: who computes the products with A; see :func:`curvscope.eigsh`. None: this process.
        progress: see :data:`.progress.Progress`.

    Cost: num_probes products with A and with P, those of k pairs of A (none with ``solution``) and of P, and with ``damping``
        those of a linear system for each vector; memory: 3 blocks of 32 vectors, 2 k vectors.

    Raises:
        InvalidArgument, InvalidType: matrices of other shapes, a P that is not symmetric, a solution of another operator.
        NotFinite: a product has NaN in it.
    Limits: the top space of P is as its eigenpairs are found; where eigenvalues at j are equal, overlap at j means nothing.
    Source: as :func:`curvscope.posterior_error` and :func:`curvscope.overlap`.

    >>> import curvscope as cs
    >>> A = cs.problems.spectrum("power", 300)
    >>> found = cs.compare(A, cs.eigsh(A, k=20), k=10, damping=0.01)
    >>> bool(found.overlap[-1] > 0.99), found.inverse_errors.shape
    (True, torch.Size([4]))
    """
    matrix = as_operator(operator)
    check_operator(matrix)
    k = min(10, matrix.shape[0]) if k is None else k
    check_k(k, matrix.shape[0])
    if damping is None and vectors is not None:
        raise InvalidArgument("vectors are for the inverses: pass damping= as well")
    if solution is not None:
        check_solution(matrix, solution, "solution")
        if solution.k < k or solution.order != "LM":
            raise InvalidArgument(f"solution has {solution.k} pairs of order {solution.order}: pass k={k} or more of order LM")
    other = as_approximation(approximation, matrix)
    chosen = None if vectors is None else _columns(vectors, matrix)
    frobenius, layers = _probed(matrix, other, num_probes, seed=seed, executor=executor, progress=progress)
    pairs = solution if solution is not None else eigsh(matrix, k, tol=tol, seed=seed, executor=executor, progress=progress)
    products = frobenius.products + (pairs.products if solution is None else 0)
    errors, more = torch.zeros(0, dtype=torch.float64, device="cpu"), 0
    if damping is not None:
        if chosen is None:
            chosen = draw("gaussian", matrix, seed=seed, role=ROLE).columns(0, VECTORS)
        errors, more = _inverse_errors(matrix, other, chosen, damping, pairs, tol)
    return Comparison(
        frobenius=frobenius,
        overlap=_overlap(pairs, other, k, tol, seed),
        layers=layers,
        inverse_errors=errors,
        best_relative=_best(frobenius.norm, pairs.eigenvalues[:k]),
        products=products + more,
    )


def _probed(
    matrix: Operator, other: Operator, num_probes: int, *, seed: int, executor: Any, progress: Progress
) -> tuple[FrobeniusEstimate, dict[str, float]]:
    """Frobenius norms of A and A - P, and the relative error of the rows of each tensor, from the same Gaussian probes."""
    names = getattr(matrix, "parameters", None)
    slices = {} if names is None else names.slices
    sums: dict[str, list[Tensor]] = {"norm": [], "error": [], "approximation": []}
    rows = {name: torch.zeros(2, dtype=torch.float64, device="cpu") for name in slices}
    probes = draw("gaussian", matrix, seed=seed, role=ROLE)
    with metered(matrix, executor, progress) as meter, meter.stage("probes", num_probes):
        for start, stop in blocks(num_probes, WIDEST_BLOCK):
            block = probes.columns(start, stop)
            product = meter.multiply(block).double()
            approximate = (other @ block.to(other.dtype)).double()
            difference = product - approximate
            for name, part in (("norm", product), ("error", difference), ("approximation", approximate)):
                sums[name].append(part.square().sum(dim=0).cpu())
            for name, place in slices.items():
                rows[name] += torch.stack([difference[place].square().sum(), product[place].square().sum()]).cpu()
        products = meter.products
    size = torch.cat(sums["approximation"]).mean().sqrt()[None]  # of P: nothing is known of it but what the probes see
    samples = Samples(torch.cat(sums["norm"]), torch.cat(sums["error"])[None])
    layers = {name: float((pair[0] / pair[1]).sqrt()) if float(pair[1]) else 0.0 for name, pair in rows.items()}
    return FrobeniusEstimate(samples, size, products=products), layers


def as_approximation(given: Any, like: Operator) -> Operator:
    """Return what stands for A as an operator of its shape.

    Raises:
        InvalidArgument: of another shape or device, or not symmetric.
    """
    if isinstance(given, Solution):
        given = given.low_rank()
    if isinstance(given, Mapping):
        named = getattr(like, "parameters", None)
        if named is None:
            raise InvalidArgument("this operator has no named parameters: pass the diagonal as a (D,) tensor")
        given = named.flatten(given)
    if isinstance(given, np.ndarray) and given.ndim == 1:
        given = torch.from_numpy(given)
    if isinstance(given, Tensor) and given.ndim == 1:
        return Diagonal(given, like)
    made = as_operator(given)
    if made.shape != like.shape or made.device != like.device:
        raise InvalidArgument(f"the approximation is {made!r}, the matrix {like!r}: shape and device must agree")
    check_operator(made)
    return made


def _columns(vectors: Any, matrix: Operator) -> Tensor:
    tensor = torch.as_tensor(vectors, device=matrix.device)
    if tensor.ndim not in (1, 2) or tensor.shape[0] != matrix.shape[0]:
        raise InvalidArgument(f"vectors has shape {tuple(tensor.shape)}: pass ({matrix.shape[0]},) or ({matrix.shape[0]}, n)")
    return (tensor[:, None] if tensor.ndim == 1 else tensor).to(matrix.device, matrix.dtype)


def _best(norm: float, values: Tensor) -> float:
    """The error of the best approximation of rank k, from the norm and the k largest eigenvalues."""
    left = norm**2 - float(values.square().sum())
    return (max(left, 0.0) ** 0.5) / norm if norm else 0.0


def _overlap(pairs: Solution, other: Operator, k: int, tol: float, seed: int) -> Tensor:
    """||V_j* U_j||_F^2 / j for j = 1..k."""
    known = pairs.eigenvectors.leading(k)
    if isinstance(other, Diagonal):
        index = other.entries.abs().topk(k).indices
        inner = known.rows(index).double().cpu().mT
    else:
        inner = gram(known, _top_space(other, k, tol, seed), double=True)
    masses = inner.square().cumsum(0).cumsum(1).diagonal()[:k]
    counts = torch.arange(1, len(masses) + 1, dtype=torch.float64, device="cpu")
    found = masses / counts
    # A low-rank matrix has no more directions than its rank: further ones of A are not captured.
    last = masses[-1:] if len(masses) else masses.new_zeros(1)
    rest = torch.arange(len(masses) + 1, k + 1, dtype=torch.float64, device="cpu")
    return torch.cat([found, last / rest])


def _top_space(other: Operator, k: int, tol: float, seed: int) -> TallMatrix:
    if isinstance(other, LowRank):
        above = (other.values.abs() > abs(other.outside)).nonzero().flatten()
        order = above[other.values[above].abs().argsort(descending=True, stable=True)][:k]
        if torch.equal(order, torch.arange(len(order), device="cpu")):
            return other.vectors.leading(len(order))
        return InMemory(other.vectors.to_tensor()[:, order.to(other.device)])
    return eigsh(other, k, tol=tol, seed=seed, progress=False).eigenvectors


def _inverse_errors(
    matrix: Operator, other: Operator, vectors: Tensor, damping: float, pairs: Solution, tol: float
) -> tuple[Tensor, int]:
    """Relative differences of the solutions, and the products with A that they took."""
    exact = solve(matrix, vectors, damping=damping, tol=tol, deflate=pairs, progress=False)
    theirs = vectors.to(other.dtype)
    if isinstance(other, Diagonal):
        approximate = theirs / (other.entries + damping)[:, None]
    elif isinstance(other, LowRank):
        approximate = other.map(lambda values: 1 / (values + damping)) @ theirs
    else:
        approximate = solve(other, theirs, damping=damping, tol=tol, progress=False).x
    difference = torch.linalg.vector_norm((approximate.double() - exact.x.double()), dim=0)
    return (difference / torch.linalg.vector_norm(exact.x.double(), dim=0)).cpu(), exact.products
