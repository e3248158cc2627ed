"""How much of an eigenspace lies on a mask, for every k, beside what chance would give."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curvscope.certify import overlap_bracket
from curvscope.errors import InvalidArgument, InvalidType
from curvscope.solvers import Solution
from curvscope.subspaces.masks import Ranking
from curvscope.tall import InMemory, TallMatrix, orthogonality

LARGEST_DEFECT = 1e-3


@dataclass(frozen=True)
class OverlapCurve:
    """Overlap of the k first eigenvectors with the k first parameters of a ranking, k = 1, ..., K.

    Attributes:
        k: (K,) int64.
        value: (K,) float64 in [0, 1].
        size: D.
        ranking: what the mask ranks by.
        lower: (K,) float64, with ``upper`` an interval that holds the overlap of the true eigenspace; None without a
            certificate.
        upper: (K,) float64, or None.
        failure: probability that the interval is wrong; 0 without one.
    """

    k: Tensor
    value: Tensor
    size: int
    ranking: str
    lower: Tensor | None = None
    upper: Tensor | None = None
    failure: float = 0.0

    @property
    def chance(self) -> Tensor:
        """k/D: the mean for a uniformly random subspace, and for a uniformly random mask."""
        return self.k.double() / self.size

    @property
    def ratio(self) -> Tensor:
        """The value over chance level."""
        return self.value / self.chance

    def at(self, k: int) -> float:
        """The overlap for one k."""
        if not 1 <= k <= len(self.k):
            raise InvalidArgument(f"k={k}: the curve goes from 1 to {len(self.k)}")
        return float(self.value[k - 1])

    def to_dict(self) -> dict[str, object]:
        """Plain numbers, for JSON."""
        plain = {
            "D": self.size,
            "ranking": self.ranking,
            "k": self.k.tolist(),
            "overlap": self.value.tolist(),
            "chance": self.chance.tolist(),
        }
        if self.lower is None or self.upper is None:
            return plain
        return plain | {"lower": self.lower.tolist(), "upper": self.upper.tolist(), "failure": self.failure}


def overlap(basis: Solution | TallMatrix | Tensor, ranking: Ranking) -> OverlapCurve:
    r"""Share of the top-k eigenspace that lies on the top-k mask, for every k at once.

    .. math:: o(k) = \frac1k \|\Phi_k V_k\|_F^2 = \frac1k \sum_{i \in \mathrm{mask}_k} \sum_{j \le k} V_{ij}^2 \in [0, 1]

    the mean squared cosine of the principal angles between the two k-dimensional spaces; on average k/D for random ones.
    For a solution with a certificate, ``lower`` and ``upper`` hold the overlap of the true eigenspace; see
    :func:`.overlap_bracket`.

    Args:
        basis: a solution, or orthonormal columns (D, K), in descending order of importance.
        ranking: of the same D parameters; see :mod:`.masks`.

    Cost: no products; reads K rows of V, O(K^2) float64 numbers, exact for orthonormal V (a defect ||V'V - I||_2 = d changes
        the result by at most d).

    Raises:
        InvalidArgument: another D than the ranking's, columns that are not orthonormal.
    Source: Fernandez et al., TMLR 2025 (arXiv 2504.14701), section 3.

    >>> curve = overlap(torch.eye(4)[:, :2], Ranking(torch.tensor([0, 3, 1, 2]), "example"))
    >>> curve.value.tolist(), curve.chance.tolist()
    ([1.0, 0.5], [0.25, 0.5])
    """
    vectors = _columns(basis)
    size, most = vectors.shape
    if ranking.size != size:
        raise InvalidArgument(
            f"the ranking has {ranking.size} parameters, the vectors {size} rows: rank the parameters that the operator was "
            "built on (the same params filter)"
        )
    if not isinstance(basis, Solution) and (defect := orthogonality(vectors)) > LARGEST_DEFECT:
        raise InvalidArgument(f"the columns are not orthonormal, max |V'V - I| = {defect:.1e}: pass torch.linalg.qr(V).Q")
    rows = vectors.rows(ranking.order[:most].to(vectors.device)).double().cpu()
    k = torch.arange(1, most + 1)
    captured = rows.square().cumsum(0).cumsum(1)
    value = (captured.diagonal() / k).clamp(max=1.0)
    certificate = basis.certificate if isinstance(basis, Solution) else None
    if certificate is None:
        return OverlapCurve(k, value, size, ranking.name)
    lower, upper = overlap_bracket(captured, certificate, defect=orthogonality(vectors, spectral=True))
    return OverlapCurve(k, value, size, ranking.name, lower, upper, certificate.tail.failure)


def _columns(basis: Solution | TallMatrix | Tensor) -> TallMatrix:
    match basis:
        case Solution():
            return basis.eigenvectors
        case TallMatrix():
            return basis
        case Tensor():
            return InMemory(basis)
    raise InvalidType(f"cannot compare a {type(basis).__name__}: pass a Solution or orthonormal columns (D, K)")
