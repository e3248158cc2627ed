"""How much of an operator lies beyond each rank: bounds for choosing one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from curvscope.certificates._frobenius import FrobeniusEstimate
from curvscope.store import Saved
from curvscope.system import Displayed, Hinted, frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class Scree(Saved, Displayed, Hinted):
    r"""Bounds for scree(r) = tau_{r+1}(A)^2 / \|A\|_F^2, the share of the squared norm that the best rank-r A_r leaves.

    Attributes:
        rank: r = 0, ..., k, int64 (k + 1,).
        lower: float64 (k + 1,), in [0, 1].
        upper: float64 (k + 1,); may exceed 1 where the approximation is worse than none.
        confidence: with which both hold for all r at once; None: they take the estimated norms for the true ones.

    >>> import curvscope as cs
    >>> A = torch.diag(torch.tensor([4.0, 3.0, 0.0, 0.0]))
    >>> cs.scree(A, cs.eigsh(A, k=2)).smallest_rank(0.01)
    2
    """

    rank: Tensor
    lower: Tensor
    upper: Tensor
    confidence: float | None = None

    _instead: ClassVar[Mapping[str, str]] = {
        "values": "scree.lower and scree.upper",
        "value": "scree.lower and scree.upper",
        "k": "scree.rank",
        "ranks": "scree.rank",
        "rank_for": "scree.smallest_rank(share)",
    }

    def __len__(self) -> int:
        return len(self.rank)

    def __iter__(self) -> Iterator[Tensor]:
        """(lower, upper), to unpack."""
        yield self.lower
        yield self.upper

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        plain = {"rank": self.rank.tolist(), "lower": self.lower.tolist(), "upper": self.upper.tolist()}
        return {**plain, "confidence": self.confidence}

    def to_pandas(self) -> Any:
        """A data frame with a row for each rank: lower, upper; needs pandas."""
        return frame({name: getattr(self, name).tolist() for name in ("rank", "lower", "upper")})

    def __str__(self) -> str:
        last = int(self.rank[-1])
        shown = [*[rank for rank in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000) if rank < last][-9:], last]
        sure = "estimated" if self.confidence is None else f"with confidence {self.confidence:g}"
        rows = [f"Share of ||A||^2 beyond each rank, {sure}", "", f"{'rank':>7}  {'lower':>9}  {'upper':>9}"]
        return "\n".join([*rows, *(f"{r:>7}  {float(self.lower[r]):>9.3g}  {float(self.upper[r]):>9.3g}" for r in shown)])

    def smallest_rank(self, share: float) -> int | None:
        """The smallest r whose upper bound is at most ``share``; None if no rank's is."""
        good = (self.upper <= share).nonzero().flatten()
        return int(self.rank[good[0]]) if len(good) else None

    def plot(self, ax: Axes | None = None) -> Axes:
        """Both bounds against the rank, the band between them shaded; on new axes unless some are given."""
        if ax is None:
            from matplotlib.figure import Figure  # heavy, and only for drawing

            ax = Figure(figsize=(6.0, 3.8), layout="constrained").subplots()
        rank, lower, upper = self.rank.numpy(), self.lower.clamp(min=1e-16).numpy(), self.upper.clamp(min=1e-16).numpy()
        ax.fill_between(rank, lower, upper, alpha=0.25, linewidth=0)
        ax.plot(rank, upper, label="upper bound")
        ax.plot(rank, lower, linestyle="--", label="lower bound")
        ax.set(yscale="log", xlabel="rank r", ylabel="share of ||A||² beyond rank r")
        ax.set_ylim(max(1e-16, float(upper.min()) / 10), 2)
        ax.legend()
        return ax


def scree_bounds(estimate: FrobeniusEstimate, *, confidence: float | None = None) -> Scree:
    r"""Scree bounds from an a-posteriori estimate.

    From :math:`|\tau_{r+1}(A) - \tau_{r+1}(\hat A)| \le \|A - \hat A\|_F`:

    .. math:: \frac{(\tau_{r+1}(\hat A) - e)_+^2}{\|A\|_F^2} \le \mathrm{scree}(r)
              \le \frac{(\tau_{r+1}(\hat A) + e)^2}{\|A\|_F^2}, \qquad e = \|A - \hat A\|_F

    with the estimated norms; with a confidence, with the ends of their intervals that make both sides true.

    Args:
        estimate: norms and values.
        confidence: None, or the probability with which both bounds shall hold.

    Source: Tropp, Yurtsever, Udell, Cevher (SISC 2019), section 6.5; their lower curve, tau(A_hat)^2 / ||A||_F^2, is not
        implied by the inequality, this one is.
    """
    values = estimate.values.abs().sort(descending=True).values.double()
    squares = torch.cat([values.square().flip(0).cumsum(0).flip(0), torch.zeros(1, dtype=torch.float64, device="cpu")])
    tails = squares.sqrt()
    error, smallest, largest = estimate.error, estimate.norm, estimate.norm
    if confidence is not None:
        each = 1 - (1 - confidence) / 2
        error = estimate.bounds(each)[1]
        smallest, largest = estimate.norm_bounds(each)
    rank = torch.arange(len(tails), device="cpu")
    if not estimate.norm:
        return Scree(rank, torch.zeros_like(tails), torch.zeros_like(tails), confidence)
    lower = ((tails - error).clamp(min=0) / largest).square().clamp(max=1)
    return Scree(rank, lower, ((tails + error) / smallest).square(), confidence)
