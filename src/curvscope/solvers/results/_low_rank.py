"""What k eigenpairs say about the whole matrix: low rank plus a multiple of the identity, and functions of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.operators.base import Operator
from curvscope.operators.fingerprint import fingerprint
from curvscope.tall import InMemory, TallMatrix, gram, subtract

log = logging.getLogger(__name__)

LEAST_REPORTED_ERROR = 0.01
"""Relative error of an inverse from which it is told of."""


class LeftOut(NamedTuple):
    """Difference between a matrix and V diag V*, as far as it is known.

    Attributes:
        bound: of its norm, except with a small probability; infinite: nothing is proven.
        estimate: of its norm, the smallest magnitude of an eigenvalue that was found.
    """

    bound: float
    estimate: float


class LowRank(Operator):
    r"""V diag(values) V\* + outside (I - V V\*) for orthonormal columns V: eigenpairs, and one value for all other directions.

    What :meth:`.Solution.low_rank` gives. Its inverse and its roots have the same form, with the same V: nothing is
    factorised, and products with them cost no more.

    Args:
        vectors: V, (D, k), orthonormal columns.
        values: float64 (k,).
        outside: the value of every direction orthogonal to V.
        left_out: what is known of the difference to the matrix that the pairs are of; None: nothing.

    Cost: a product is 4 D k operations a vector and two reads of V; memory: two panels and the result.

    >>> A = LowRank(InMemory(torch.eye(3)[:, :1]), torch.tensor([4.0]), 1.0)
    >>> (A @ torch.ones(3)).tolist(), (A.inverse() @ torch.ones(3)).tolist(), (A.square_root() @ torch.ones(3)).tolist()
    ([4.0, 1.0, 1.0], [0.25, 1.0, 1.0], [2.0, 1.0, 1.0])
    """

    hermitian = True
    is_inverse = False
    """Whether this stands for the inverse of the matrix that the pairs are of."""

    _instead: ClassVar[Mapping[str, str]] = {
        **Operator._instead,
        **dict.fromkeys(("sqrt", "root", "cholesky"), "square_root(), R with R R = A"),
        **dict.fromkeys(("inv", "pinv"), "inverse()"),
        "solve": "inverse() @ b",
        **dict.fromkeys(
            ("sample", "samples", "rsample", "draw"),
            "A.inverse_square_root() @ torch.randn(D, n), samples of covariance A^-1; A.square_root() @ ... for covariance A",
        ),
        **dict.fromkeys(("variance", "marginals", "diag"), "diagonal(); inverse().diagonal() for marginal variances of A^-1"),
        **dict.fromkeys(("log_det", "slogdet", "log_determinant"), "logdet()"),
    }

    def __init__(self, vectors: TallMatrix, values: Tensor, outside: float = 0.0, *, left_out: LeftOut | None = None) -> None:
        if len(values) != vectors.shape[1]:
            raise InvalidArgument(f"{len(values)} values for {vectors.shape[1]} vectors: pass one for each")
        self.vectors, self.values, self.outside = vectors, values.double().cpu(), float(outside)
        self.left_out = left_out
        size = vectors.shape[0]
        self.shape, self.dtype, self.device = (size, size), vectors.dtype, vectors.device

    def inverse(self) -> LowRank:
        """The inverse operator.

        It takes every eigenvalue that was not computed for zero, which may make it far wrong: :attr:`inverse_error`. Where that
        is likely, a warning says so. :func:`curvscope.solve` with this operator as ``preconditioner`` has no such error.

        Raises:
            InvalidArgument: it is singular, to rounding.
        """
        found = self.inverted()
        if not self.is_inverse and (text := self._warning()):
            log.warning(text)
        return found

    def inverted(self) -> LowRank:
        """As :meth:`inverse`, without a warning: for those who use it as a preconditioner."""
        self._require(self._smallest > 0, "singular", "has no inverse")
        found = self.map(lambda value: 1 / value)
        found.is_inverse, found.left_out = not self.is_inverse, self.left_out
        return found

    @property
    def inverse_error(self) -> float:
        r"""Bound for ||x - x_*|| / ||x_*||, x by the inverse and x_* with the exact matrix; infinite where nothing proves one.

        .. math:: x - x_* = L^{-1} (M - L)\, x_*

        with L this operator and M the damped matrix: ||M - L|| over the least magnitude of an eigenvalue of L. ||M - L|| is
        bounded where the solution has a certificate, see :func:`curvscope.certify`.
        """
        return self._relative(math.inf if self.left_out is None else self.left_out.bound)

    @property
    def inverse_error_estimate(self) -> float:
        """The same with the smallest eigenvalue found in the place of the bound: what it is where no larger one was missed."""
        return self._relative(math.inf if self.left_out is None else self.left_out.estimate)

    def _relative(self, difference: float) -> float:
        least = 1 / float(self._different.abs().max()) if self.is_inverse else self._smallest
        return difference / least if least and difference else 0.0 if not difference else math.inf

    def _warning(self) -> str:
        if self.left_out is None or max(self.inverse_error_estimate, 0.0) < LEAST_REPORTED_ERROR:
            return ""
        proven = f"at most {self.inverse_error:.3g} is proven" if math.isfinite(self.inverse_error) else "no bound is proven"
        return (
            f"this inverse takes all eigenvalues but {len(self.values)} for zero: solutions may be off by "
            f"{self.inverse_error_estimate:.3g} of the exact ones ({proven}). cs.solve(A, b, damping=..., preconditioner="
            "solution.low_rank(...)) solves with the whole matrix; more pairs or more damping make the inverse better"
        )

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
