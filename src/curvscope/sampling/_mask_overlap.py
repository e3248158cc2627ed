r"""Intervals for the overlap of the population's eigenspace with a mask.

.. math:: o(k) = \tfrac1k \|\Phi_k V_k\|_F^2

is a smooth function of the sample's matrix where a gap follows lambda_k. Bias by halving, spread by deleting folds: the vectors
without a fold are those in the basis, after one multiplication by the matrix without the fold, which brings the directions
outside of the basis to first order. Only the rows of the mask are ever read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.sampling._folded import jackknife_spread, mean_core, without_each
from curvscope.sampling._student import student_quantile
from curvscope.solvers.results import wanted
from curvscope.subspaces import Mask, OverlapCurve, Ranking

MOST_ROWS = 4096
"""Parameters of a mask: their rows are kept for every fold."""


@dataclass(frozen=True)
class Rows:
    """Rows of the basis, and of its products with the matrix of every fold.

    Attributes:
        basis: float64 (r, m).
        products: float64 (G, r, m).
    """

    basis: Tensor
    products: Tensor

    def part(self, start: int, stop: int) -> Rows:
        """Some of the rows."""
        return Rows(self.basis[start:stop], self.products[:, start:stop])


def rows_of(mask: Ranking | Mask, k: int) -> Tensor:
    """Places of the parameters of a mask, those of a ranking up to the k-th.

    Raises:
        InvalidArgument: too many of them.
    """
    index = mask.order[:k] if isinstance(mask, Ranking) else mask.index
    if len(index) > MOST_ROWS:
        raise InvalidArgument(f"the mask has {len(index)} parameters: pass a ranking, or a mask of at most {MOST_ROWS}")
    return index.cpu()


def overlap_interval(
    mask: Ranking | Mask,
    rows: Rows,
    cores: Tensor,
    shares: Tensor,
    vectors: tuple[Tensor, Tensor, Tensor],
    order: str,
    level: float,
) -> OverlapCurve:
    """Return the overlap of a sample with a mask, for every k, with an interval for the population's.

    Args:
        mask: a ranking, or a fixed mask.
        rows: of its parameters.
        cores: (G, m, m), of the folds' matrices.
        shares: (G,).
        vectors: coordinates of the pairs of the whole and of both halves, (m, k) or wider, in the order of the solution.
        order: of the pairs.
        level: of each interval.
    """
    whole, *halves = vectors
    k = whole.shape[1]
    ranked = isinstance(mask, Ranking)
    value = _overlaps(rows.basis @ whole, ranked)
    bias = torch.stack([_overlaps(rows.basis @ half[:, :k], ranked) for half in halves]).mean(0) - value
    without = torch.stack(
        [
            _of_core(core, products, k, order, ranked)
            for core, products in zip(without_each(cores, shares), without_each(rows.products, shares), strict=True)
        ]
    )
    together = _of_core(mean_core(cores, shares), mean_core(rows.products, shares), k, order, ranked)
    spread = jackknife_spread(together, without, shares)
    half = torch.hypot(student_quantile((1 + level) / 2, len(shares) - 1) * spread, bias)
    centre = (value - bias).clamp(0, 1)
    return OverlapCurve(
        torch.arange(1, k + 1, device="cpu"),
        value,
        mask.size,
        mask.name,
        dimension=None if ranked else torch.full((k,), len(rows.basis), device="cpu"),
        sampling_lower=(centre - half).clamp(min=0),
        sampling_upper=(centre + half).clamp(max=1),
    )


def _of_core(core: Tensor, products: Tensor, k: int, order: str, ranked: bool) -> Tensor:
    """Overlaps of the k first eigenvectors of a matrix in the basis, after one multiplication by it."""
    values, vectors = torch.linalg.eigh(core)
    chosen = wanted(values, k, order)
    tiny = torch.finfo(values.dtype).tiny
    return _overlaps(products @ vectors[:, chosen] / values[chosen].where(values[chosen].abs() > tiny, tiny), ranked)


def _overlaps(rows: Tensor, ranked: bool) -> Tensor:
    """The overlap for every k from the rows of the mask, (r, k)."""
    squares, k = rows.square(), rows.shape[1]
    numbers = torch.arange(1, k + 1, device="cpu")
    if not ranked:
        return (squares.sum(0).cumsum(0) / numbers).clamp(max=1)
    return (squares.cumsum(0).cumsum(1).diagonal() / numbers).clamp(max=1)
