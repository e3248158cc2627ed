"""What k eigenpairs say about the whole matrix: low rank plus a multiple of the identity, and functions of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.operators.base import Operator
from curvscope.operators.fingerprint import fingerprint
from curvscope.tall import InMemory, TallMatrix, gram, subtract


class LowRank(Operator):
    r"""V diag(values) V\* + outside (I - V V\*) for orthonormal columns V: eigenpairs, and one value for all other directions.

    What :meth:`.Solution.low_rank` gives. Its inverse and its roots have the same form, with the same V: nothing is
    factorised, and products with them cost no more.

    Args:
        vectors: V, (D, k), orthonormal columns.
        values: float64 (k,).
        outside: the value of every direction orthogonal to V.

    Cost: a product is 4 D k operations a vector and two reads of V; memory: two panels and the result.

    >>> A = LowRank(InMemory(torch.eye(3)[:, :1]), torch.tensor([4.0]), 1.0)
    >>> (A @ torch.ones(3)).tolist(), (A.inverse() @ torch.ones(3)).tolist(), (A.square_root() @ torch.ones(3)).tolist()
    ([4.0, 1.0, 1.0], [0.25, 1.0, 1.0], [2.0, 1.0, 1.0])
    """

    hermitian = True

    def __init__(self, vectors: TallMatrix, values: Tensor, outside: float = 0.0) -> None:
        if len(values) != vectors.shape[1]:
            raise InvalidArgument(f"{len(values)} values for {vectors.shape[1]} vectors: pass one for each")
        self.vectors, self.values, self.outside = vectors, values.double().cpu(), float(outside)
        size = vectors.shape[0]
        self.shape, self.dtype, self.device = (size, size), vectors.dtype, vectors.device

    def inverse(self) -> LowRank:
        """The inverse operator.

        Raises:
            InvalidArgument: it is singular, to rounding.
        """
        self._require(self._smallest > 0, "singular", "has no inverse")
        return self.map(lambda value: 1 / value)

    def square_root(self) -> LowRank:
        """The positive semidefinite R with R R = A.

        Raises:
            InvalidArgument: A has negative values.
        """
        self._require(self._least >= 0, "not positive semidefinite", "has no real square root")
        return self.map(torch.sqrt)

    def inverse_square_root(self) -> LowRank:
        """The inverse of :meth:`square_root`: maps white noise to samples of the Gaussian with covariance A^-1.

        Raises:
            InvalidArgument: A has negative values, or is singular.
        """
        self._require(self._least > 0 and self._smallest > 0, "not positive definite", "has no inverse square root")
        return self.map(torch.rsqrt)

    def map(self, function: Callable[[Tensor], Tensor]) -> LowRank:
        """The operator with ``function`` applied to all its eigenvalues: f(values) on V, f(outside) elsewhere."""
        mapped = function(self._different)
        return LowRank(self.vectors, mapped[: len(self.values)], float(mapped[-1]))

    def diagonal(self) -> Tensor:
        """The D diagonal entries, in the operator's dtype. Cost: one read of V."""
        entries = torch.empty(self.shape[0], dtype=self.dtype, device=self.device)
        weights = (self.values - self.outside).to(self.device)
        for panel in self.vectors.panels():
            squares = self.vectors.rows(panel).abs().square().to(weights.dtype)
            entries[panel] = (squares @ weights + self.outside).to(self.dtype)
        return entries

    def trace(self) -> float:
        """The sum of all D eigenvalues."""
        return float(self.values.sum()) + (self.shape[0] - len(self.values)) * self.outside

    def logdet(self) -> float:
        """The logarithm of the determinant, in double precision.

        Raises:
            InvalidArgument: A is not positive definite.
        """
        self._require(self._least > 0, "not positive definite", "has no logarithm of its determinant")
        others = self.shape[0] - len(self.values)
        return float(self.values.log().sum()) + (others * math.log(self.outside) if others else 0.0)

    @property
    def _different(self) -> Tensor:
        """The different eigenvalues: one of an empty complement does not count."""
        if len(self.values) == self.shape[0]:
            return self.values
        return torch.cat([self.values, torch.tensor([self.outside], dtype=torch.float64, device="cpu")])

    @property
    def _least(self) -> float:
        return float(self._different.min())

    @property
    def _smallest(self) -> float:
        """The smallest magnitude, 0 if rounding may have made it."""
        sizes = self._different.abs()
        unit = torch.finfo(torch.float64).eps
        return float(sizes.min()) if float(sizes.min()) > unit * float(sizes.max()) else 0.0

    def _require(self, holds: bool, what: str, consequence: str) -> None:
        if not holds:
            negative = int((self.values < 0).sum())
            raise InvalidArgument(
                f"this operator is {what} and {consequence}: {negative} of its {len(self.values)} eigenvalues are negative, "
                f"the smallest is {self._least:.3g}, and {self.outside:g} stands for all others; use a larger damping, "
                "low_rank(positive=True) to leave the negative ones out, or a GGN or Fisher, which have none"
            )

    def _apply(self, block: Tensor) -> Tensor:
        coefficients = gram(self.vectors, InMemory(block))
        result = block * self.outside
        subtract(result, self.vectors, (self.outside - self.values)[:, None] * coefficients)
        return result

    def _fingerprint(self) -> str:
        k = len(self.values)
        columns = [fingerprint(self.vectors.columns(start, min(start + 32, k))) for start in range(0, k, 32)]
        return fingerprint("low rank", self.shape, self.dtype, self.values, self.outside, columns)
