"""Matrices of the folds in a small basis: what every statement about the population is computed from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument

FEWEST_FOLDS = 4
"""Two in each half, so that each half knows its own scatter."""


@dataclass(frozen=True)
class Pairs:
    """Eigenpairs of a matrix, in coordinates of the basis, largest eigenvalue first.

    Attributes:
        values: float64 (K,), descending.
        vectors: float64 (m, K), orthonormal.
        rest: an upper bound of every eigenvalue of the matrix outside of the span of the vectors.
        coupling: Frobenius norm of the residuals, which bounds the part of the matrix between the span and the rest.
    """

    values: Tensor
    vectors: Tensor
    rest: float
    coupling: float = 0.0


@dataclass(frozen=True)
class Folded:
    """The sample's matrix by folds: H = sum_g shares[g] H_g, each known in an orthonormal basis Q of m directions.

    The first half of the folds is the first half of the samples, the others are the second one.

    Attributes:
        shares: float64 (G,), positive, their sum is 1.
        cores: float64 (G, m, m), Q' H_g Q.
        whole: pairs of H.
        halves: pairs of the mean over the first G // 2 folds, and of that over the others.
    """

    shares: Tensor
    cores: Tensor
    whole: Pairs
    halves: tuple[Pairs, Pairs]

    def __post_init__(self) -> None:
        if len(self.shares) < FEWEST_FOLDS:
            raise InvalidArgument(f"{len(self.shares)} folds: halves of at least two each need {FEWEST_FOLDS} or more")

    @property
    def first(self) -> slice:
        """Folds of the first half."""
        return slice(0, len(self.shares) // 2)

    @property
    def second(self) -> slice:
        """Folds of the second half."""
        return slice(len(self.shares) // 2, len(self.shares))

    def projected(self, coordinates: Tensor) -> Folded:
        """The same in the span of orthonormal columns of the basis; the pairs stay as they are."""
        return Folded(self.shares, coordinates.mT @ self.cores @ coordinates, self.whole, self.halves)


def mean_core(cores: Tensor, shares: Tensor) -> Tensor:
    """The mean of the folds' matrices, weighted by their shares."""
    mean: Tensor = torch.tensordot((shares / shares.sum()).to(cores), cores, 1)
    return mean


def without_each(cores: Tensor, shares: Tensor) -> Tensor:
    """(G, m, m): the mean of all folds but one, for each.

    >>> without_each(torch.tensor([1.0, 2.0, 6.0]).reshape(3, 1, 1), torch.ones(3)).flatten().tolist()
    [4.0, 3.5, 1.5]
    """
    shares = shares.to(cores)
    total, weight = torch.tensordot(shares, cores, 1), shares.sum()
    others: Tensor = (total - shares[:, None, None] * cores) / (weight - shares)[:, None, None]
    return others


def jackknife_spread(value: Tensor, without: Tensor, shares: Tensor) -> Tensor:
    r"""Standard error of a statistic of all samples, from its values without each fold.

    .. math:: s^2 = \frac1G \sum_g \frac{(\tilde\theta_g - \bar\theta)^2}{h_g - 1}, \qquad
        \tilde\theta_g = h_g \theta - (h_g - 1)\,\theta_{(-g)}, \quad h_g = 1 / w_g

    with the mean of the pseudo-values weighted by 1 / h_g. For equal folds that is (G - 1)/G times the sum of squares about
    the mean.

    Args:
        value: (k,) of all samples.
        without: (G, k).
        shares: (G,).

    Source: Busing, Meijer and van der Leeden, Statistics and Computing 9 (1999), delete-m(j) jackknife.

    >>> numbers = torch.tensor([1.0, 2.0, 6.0])
    >>> without = torch.stack([numbers.sum() - number for number in numbers])[:, None] / 2
    >>> round(float(jackknife_spread(numbers.mean()[None], without, torch.ones(3) / 3)), 6)    # std / sqrt(3)
    1.527525
    """
    weights = (shares / shares.sum())[:, None]
    blocks = 1 / weights
    pseudo = blocks * value - (blocks - 1) * without
    centre = (weights * pseudo).sum(0)
    squares = (pseudo - centre).square() / (blocks - 1)
    return squares.mean(0).sqrt()


def largest(matrices: Tensor, k: int) -> Tensor:
    """The k largest eigenvalues of each symmetric matrix, descending."""
    values: Tensor = torch.linalg.eigvalsh(matrices)
    return values.flip(-1)[..., :k]
