"""How far an approximation is from its operator, in the Frobenius norm, from fresh Gaussian probes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.store import Saved
from curvscope.system import Displayed, Hinted, checked, frame
from curvscope.tall import InMemory, TallMatrix, gram, small_dtype

MOST_PROBES = 10_000_000


@dataclass(frozen=True)
class Samples(Saved):
    """Products of q probes w with A, and with its approximations of rank 0 to k.

    Attributes:
        norm: ||A w||^2, float64 (q,).
        error: ||(A - A_r) w||^2 for r = 0, ..., k, float64 (k + 1, q).
    """

    norm: Tensor
    error: Tensor


def sample(probes: Tensor, products: Tensor, left: TallMatrix, values: Tensor, right: TallMatrix) -> Samples:
    r"""Errors of A_r = sum_{i <= r} s_i u_i v_i* on probes w, for every rank r at once.

    With y = A w, p = U* y and c = s V* w,

    .. math:: \|(A - A_r) w\|^2 = \|y - U p\|^2 + \sum_{i \le r} |p_i - c_i|^2 + \sum_{i > r} |p_i|^2

    a sum of squares without cancellation.

    Args:
        probes: W, (n, b).
        products: A W, (m, b).
        left: U, (m, k), orthonormal columns.
        values: s, (k,), real.
        right: V, (n, k); the same as U for eigenpairs.

    Cost: 6 D k b operations in double precision, no products; memory: one (m, b) block in double precision.
    """
    high = small_dtype(products.dtype)
    seen = gram(left, InMemory(products), double=True)
    predicted = values.to(high)[:, None] * gram(right, InMemory(probes), double=True)
    rest = products.to(high, copy=True)
    for panel in left.panels():
        rest[panel] -= left.rows(panel).to(high) @ seen.to(left.device)
    outside = rest.abs().square().sum(dim=0).cpu()
    missed = seen.abs().square()
    nothing = torch.zeros(1, probes.shape[1], dtype=torch.float64, device="cpu")
    wrong = torch.cat([nothing, (seen - predicted).abs().square().cumsum(0)])
    later = torch.cat([missed.flip(0).cumsum(0).flip(0), nothing])
    return Samples(outside + later[0], outside + wrong + later)


@dataclass(frozen=True, repr=False)
class FrobeniusEstimate(Saved, Displayed, Hinted):
    r"""Estimated Frobenius norms of A, of its approximation and of their difference.

    The mean of \|(A - B) w\|^2 over q independent Gaussian probes w is an unbiased estimate of \|A - B\|_F^2, whatever the
    spectrum; :meth:`bounds` holds with the stated confidence because the probes are Gaussian and independent of B.

    Attributes:
        samples: what each probe saw.
        values: of the approximation; its norm is known exactly from them.
        is_complex: whether operator and probes are complex, which halves the variance.
        products: that it cost.

    >>> import curvscope as cs
    >>> A = torch.diag(torch.tensor([4.0, 3.0, 0.0, 0.0]))
    >>> estimate = cs.posterior_error(A, cs.eigsh(A, k=2))
    >>> estimate.approximation, round(estimate.relative, 6)
    (5.0, 0.0)
    """

    samples: Samples
    values: Tensor
    is_complex: bool = False
    products: int = 0

    _instead: ClassVar[Mapping[str, str]] = {
        "value": "estimate.error, or estimate.norm",
        "stderr": "estimate.error_stderr",
        "relative_error": "estimate.relative",
        "interval": "estimate.bounds(0.95)",
        "probes": "estimate.num_probes",
    }

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        names = ("norm", "norm_stderr", "approximation", "error", "error_stderr", "relative", "num_probes", "products")
        low, high = self.bounds(0.95)
        return {name: getattr(self, name) for name in names} | {"lower": low, "upper": high}

    def to_pandas(self) -> Any:
        """A data frame of one row; needs pandas."""
        return frame({name: [number] for name, number in self.to_dict().items()})

    @property
    def num_probes(self) -> int:
        """Number q of probes."""
        return len(self.samples.norm)

    @property
    def norm(self) -> float:
        """Estimate of ||A||_F."""
        return math.sqrt(float(self.samples.norm.mean()))

    @property
    def approximation(self) -> float:
        """||A_hat||_F, exact."""
        return float(self.values.norm())

    @property
    def error(self) -> float:
        """Estimate of ||A - A_hat||_F."""
        return math.sqrt(float(self.samples.error[-1].mean()))

    @property
    def relative(self) -> float:
        """Error / norm; 0 when both are."""
        return self.error / self.norm if self.norm else 0.0

    @property
    def norm_stderr(self) -> float:
        """Standard error of :attr:`norm`, from the scatter of the probes."""
        return float(_stderr(self.samples.norm))

    @property
    def error_stderr(self) -> float:
        """Standard error of :attr:`error`, from the scatter of the probes; usually far smaller than the bounds say."""
        return float(_stderr(self.samples.error[-1]))

    @property
    def truncation_errors(self) -> Tensor:
        """Estimates of ||A - A_r||_F for r = 0, ..., k, float64 (k + 1,), A_r the first r terms of the approximation."""
        return self.samples.error.mean(dim=1).sqrt()

    @property
    def truncation_stderr(self) -> Tensor:
        """Standard errors of :attr:`truncation_errors`, float64 (k + 1,)."""
        return _stderr(self.samples.error)

    @checked
    def bounds(self, confidence: float = 0.95) -> tuple[float, float]:
        """(low, high) that hold ||A - A_hat||_F with at least this probability, for any spectrum."""
        return _bounds(self.error, self.num_probes, confidence, self.is_complex)

    @checked
    def norm_bounds(self, confidence: float = 0.95) -> tuple[float, float]:
        """(low, high) that hold ||A||_F with at least this probability, for any spectrum."""
        return _bounds(self.norm, self.num_probes, confidence, self.is_complex)

    def __str__(self) -> str:
        """The estimates, as a person reads them."""
        low, high = self.bounds(0.95)
        return (
            f"||A|| = {self.norm:.4g} +- {self.norm_stderr:.1g}, ||A_hat|| = {self.approximation:.4g}, "
            f"||A - A_hat|| = {self.error:.4g} +- {self.error_stderr:.1g} ({100 * self.relative:.2g} % of ||A||; "
            f"in [{low:.3g}, {high:.3g}] with 95 % confidence), {self.num_probes} probes"
        )


@checked
def failure_probabilities(num_probes: int, relative_error: float, *, is_complex: bool = False) -> tuple[float, float]:
    r"""Upper bounds for the probabilities that an estimated squared norm is too small or too large.

    .. math:: P\{\hat e^2 \le (1 - \epsilon) e^2\} \le (e^\epsilon (1 - \epsilon))^{\beta q / 2}, \qquad
              P\{\hat e^2 \ge (1 + \epsilon) e^2\} \le (e^\epsilon / (1 + \epsilon))^{-\beta q / 2}

    with beta = 1 for real and 2 for complex Gaussian probes; sharp for errors of rank one, pessimistic for all others.

    Args:
        num_probes: q.
        relative_error: epsilon, of the squared norm, in (0, 1) (the second also for larger ones: then the first is 0).
        is_complex: whether the probes are.

    Source: Tropp, Yurtsever, Udell, Cevher (SISC 2019), section 6.

    >>> [round(p, 3) for p in failure_probabilities(50, 0.5)]
    [0.008, 0.094]
    """
    if num_probes < 1:
        raise InvalidArgument(f"num_probes={num_probes}: choose at least 1")
    if not relative_error > 0:
        raise InvalidArgument(f"relative_error={relative_error}: choose a positive number, such as 0.5")
    half = (2 if is_complex else 1) * num_probes / 2
    low = math.exp(half * (relative_error + math.log1p(-relative_error))) if relative_error < 1 else 0.0
    return low, math.exp(-half * (relative_error - math.log1p(relative_error)))


@checked
def probes_needed(confidence: float, relative_error: float, *, is_complex: bool = False) -> int:
    """Return how many probes make the estimated squared norm right to ``relative_error`` with probability ``confidence``.

    Args:
        confidence: in (0, 1).
        relative_error: of the squared norm, in (0, 1): 0.5 is a factor between 0.71 and 1.22 for the norm itself.
        is_complex: whether operator and probes are complex.

    Raises:
        InvalidArgument: confidence or error out of range, or more than ten million probes.

    >>> probes_needed(0.95, 0.5), probes_needed(0.95, 0.5, is_complex=True)
    (65, 33)
    """
    _check_confidence(confidence)
    if not 0 < relative_error < 1:
        raise InvalidArgument(f"relative_error={relative_error}: choose 0 < relative_error < 1, such as 0.5")

    def enough(probes: int) -> bool:
        """Return whether so many probes fail seldom enough."""
        return sum(failure_probabilities(probes, relative_error, is_complex=is_complex)) <= 1 - confidence

    high = 1
    while not enough(high):
        high *= 2
        if high > MOST_PROBES:
            raise InvalidArgument(f"relative_error={relative_error} takes more than {MOST_PROBES:,} probes: allow a larger one")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _bounds(estimate: float, probes: int, confidence: float, is_complex: bool) -> tuple[float, float]:
    """The interval for a norm whose two ends each fail with half the probability left."""
    _check_confidence(confidence)
    left = (1 - confidence) / 2
    too_small = _largest_deviation(lambda e: failure_probabilities(probes, e, is_complex=is_complex)[0], left, 1.0)
    too_large = _largest_deviation(lambda e: failure_probabilities(probes, e, is_complex=is_complex)[1], left, 1e6)
    return estimate / math.sqrt(1 + too_large), estimate / math.sqrt(1 - too_small) if too_small < 1 else math.inf


def _largest_deviation(probability: Callable[[float], float], left: float, high: float) -> float:
    """The epsilon at which a decreasing bound reaches ``left``, by bisection, rounded up."""
    low = 0.0
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if probability(middle) > left else (low, middle)
    return high


def _stderr(squares: Tensor) -> Tensor:
    """Standard error of the root of a mean of squares over the last dimension; infinite for a single one."""
    probes = squares.shape[-1]
    if probes < 2:
        return torch.full(squares.shape[:-1], math.inf, dtype=torch.float64, device="cpu")
    root = squares.mean(dim=-1).sqrt()
    spread = squares.std(dim=-1) / math.sqrt(probes)
    return torch.where(root > 0, spread / (2 * root.clamp(min=torch.finfo(torch.float64).tiny)), 0.0)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise InvalidArgument(f"confidence={confidence}: choose a probability between 0 and 1, such as 0.95")
