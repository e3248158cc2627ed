"""How much of a vector, or of a subspace, sits on few parameters or on few layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType, NotFinite
from curvscope.operators import ParameterFilter
from curvscope.subspaces._ranking import Mask
from curvscope.subspaces._spaces import Basis, columns
from curvscope.subspaces._weights import Layers, layer_index, layout
from curvscope.system import as_numbers, checked
from curvscope.tall import TallMatrix


def mask_size(size: int, rho: float) -> int:
    """round(rho D), half to even as the paper's code has it, at least 1.

    >>> [mask_size(7030, rho) for rho in (0.2, 0.05, 0.01, 0.005)]
    [1406, 352, 70, 35]
    """
    if not 0 < rho <= 1:
        raise InvalidArgument(f"rho={rho}: choose a share of the parameters, 0 < rho <= 1")
    return max(1, round(rho * size))


@checked
def kappa(vector: Tensor, rho: float | None = None, *, k: int | None = None, squared: bool = True) -> float:
    r"""Share of a vector's squared norm on its k largest entries.

    .. math:: \kappa = \|v_{\mathrm{top}}\|_2^2 / \|v\|_2^2 \in [k/D, 1]

    Args:
        vector: (D,); the parameters, a gradient, an eigenvector.
        rho: k as a share of D: k = :func:`mask_size`.
        k: or k itself.
        squared: as the paper defines it. Its figure 15 and its logs show the square root, the ratio of the norms: False.

    Raises:
        InvalidArgument: neither or both of rho and k, or k out of range. NotFinite: NaN or infinity.

    Source: Fernandez et al., TMLR 2025, appendix B.1.

    >>> kappa(torch.tensor([3.0, 4.0, 0.0]), k=1), kappa(torch.tensor([3.0, 4.0, 0.0]), k=1, squared=False)
    (0.64, 0.8)
    """
    squares = _squares(vector)
    if (rho is None) == (k is None):
        raise InvalidArgument("pass either rho, the share of the parameters, or k, their number")
    if rho is not None:
        k = mask_size(len(squares), rho)
    assert k is not None, "one of them is given"
    if not 1 <= k <= len(squares):
        raise InvalidArgument(f"k={k}: choose 1 to D = {len(squares)}")
    share = float(squares.topk(k).values.sum() / squares.sum())
    return share if squared else share**0.5


def concentration_curve(vector: Tensor) -> Tensor:
    """(D,) float64: :func:`kappa` for k = 1, ..., D at once (a Lorenz curve from the top).

    >>> concentration_curve(torch.tensor([3.0, 4.0])).tolist()
    [0.64, 1.0]
    """
    squares = _squares(vector)
    return squares.sort(descending=True).values.cumsum(0) / squares.sum()


@dataclass(frozen=True)
class SpectralConcentration:
    """Share of a matrix's squared Frobenius norm in its first k eigenvalues, for every k.

    Attributes:
        value: float64 (K,), at most 1.
        stderr: float64 (K,), from that of the norm; 0 for an exact norm.
    """

    value: Tensor
    stderr: Tensor

    def at(self, k: int) -> float:
        """Return the share of the first k.

        Raises:
            InvalidArgument: k is not 1 to K.
        """
        if not 1 <= k <= len(self.value):
            raise InvalidArgument(f"k={k}: choose 1 to {len(self.value)}")
        return float(self.value[k - 1])


@checked
def spectral_concentration(eigenvalues: Any, norm: Any, *, squared: bool = True) -> SpectralConcentration:
    r"""Return the kappa of a spectrum, its concentration on the eigenvalues of largest magnitude, for every k.

    .. math:: \kappa_k = \sum_{i \le k} \lambda_i^2 / \|A\|_F^2

    It is :func:`kappa` of the vector of all D eigenvalues, of which only the first K are needed: the others are in the norm.

    Args:
        eigenvalues: a solution whose order is by magnitude, or its eigenvalues, (K,).
        norm: ||A||_F, a number or what :func:`curvscope.frobenius_norm` gives; with ``deflate=solution`` its error is that of
            the part outside of the K pairs.
        squared: False: the square root, the ratio of the norms, which the paper's figure 15 shows.

    Raises:
        InvalidArgument: the eigenvalues are not finite, or not in descending order of magnitude, the norm is not positive and
            finite, or the squares exceed the squared norm by more than four of its standard errors and rounding.

    Source: Fernandez et al., TMLR 2025, appendix B.1.

    >>> import curvscope as cs
    >>> A = torch.diag(torch.tensor([3.0, -4.0, 0.0]).double())
    >>> spectral_concentration(cs.eigsh(A, k=2), 5.0).value.tolist()
    [0.64, 1.0]
    """
    values = as_numbers("eigenvalues", getattr(eigenvalues, "eigenvalues", eigenvalues)).double().flatten()
    squares = values.square()
    if not bool(torch.isfinite(values).all()):
        raise InvalidArgument("eigenvalues has entries that are NaN or infinite: look at where they were computed")
    if not len(squares) or bool((squares[1:] > squares[:-1] * (1 + 1e-6)).any()):
        raise InvalidArgument('eigenvalues that descend by magnitude were expected: compute them with which="LM"')
    size, error = as_numbers("norm", [getattr(norm, "value", norm)]).double().item(), float(getattr(norm, "stderr", 0.0))
    if not 0 < size < float("inf"):
        raise InvalidArgument(f"norm={size:g}: a finite, positive Frobenius norm was expected")
    share, spread = squares.cumsum(0) / size**2, 2 * error / size
    if float(share[-1]) > 1 + 4 * spread + 1e-4:
        raise InvalidArgument(
            f"the eigenvalues have {float(share[-1]):.3g} of the squared norm {size**2:.3g}: pass the norm of the same matrix"
        )
    share = share.clamp(max=1.0)
    deviation = share * spread
    if not squared:
        root = share.sqrt()
        return SpectralConcentration(root, deviation / (2 * root.clamp(min=1e-300)))
    return SpectralConcentration(share, deviation)


@checked
def participation_ratio(vectors: Basis) -> Tensor:
    r"""On how many parameters each column is spread: :math:`(\sum v_j^2)^2 / \sum v_j^4`, from 1 to D; (K,) float64.

    About D/3 for a random direction, 1 for a coordinate axis.

    Args:
        vectors: columns (D, K) in memory or stored, a solution, or one vector (D,).

    Cost: one read.

    >>> participation_ratio(torch.tensor([[1.0, 1.0], [0.0, 1.0]])).tolist()
    [1.0, 2.0]
    """
    return _moments(vectors, lambda squares: squares.square(), lambda second, fourth: second.square() / fourth)


def effective_number(vectors: Basis) -> Tensor:
    r"""As :func:`participation_ratio`, by entropy: :math:`\exp(-\sum p_j \log p_j)` with p_j = v_j^2 / ||v||^2.

    >>> effective_number(torch.tensor([[1.0, 1.0], [0.0, 1.0]])).round(decimals=6).tolist()
    [1.0, 2.0]
    """
    return _moments(vectors, lambda squares: torch.xlogy(squares, squares), lambda s, t: (s.log() - t / s).exp())


def hoyer(vector: Tensor) -> float:
    r"""Hoyer's sparsity, :math:`(\sqrt D - \|v\|_1 / \|v\|_2) / (\sqrt D - 1)`: 0 for equal magnitudes, 1 for one entry.

    Source: Hoyer, JMLR 5 (2004).

    >>> hoyer(torch.tensor([0.0, 2.0, 0.0])), hoyer(torch.ones(4))
    (1.0, 0.0)
    """
    squares = _squares(vector)
    if len(squares) < 2:
        raise InvalidArgument("sparsity needs at least 2 entries")
    root = len(squares) ** 0.5
    return float((root - squares.sqrt().sum() / squares.sum().sqrt()) / (root - 1))


def gini(vector: Tensor) -> float:
    """Gini coefficient of the squared entries: 0 for equal magnitudes, 1 - 1/D for one entry.

    >>> gini(torch.tensor([0.0, 2.0, 0.0, 0.0])), gini(torch.ones(4))
    (0.75, 0.0)
    """
    ascending = _squares(vector).sort().values
    count = len(ascending)
    weights = 2 * torch.arange(1, count + 1, dtype=torch.float64, device="cpu") - count - 1
    return float((weights * ascending).sum() / (count * ascending.sum()))


def layer_shares(mask: Mask, layers: Layers, *, params: ParameterFilter = None) -> dict[str, float]:
    """Share of a mask in each tensor, by name; they sum to 1.

    Args:
        mask: such as ``ranking.first(k)``.
        layers: a model, tensors by name, or the operator's ``parameters``.
        params: for a model, the operator's filter.

    >>> layer_shares(Mask(torch.tensor([0, 2]), 3, "example"), {"a": torch.zeros(2), "b": torch.zeros(1)})
    {'a': 0.5, 'b': 0.5}
    """
    parameters = layout(layers, params=params)
    counts = torch.bincount(layer_index(parameters, mask.size)[mask.index], minlength=len(parameters.names))
    return dict(zip(parameters.names, (counts / mask.count).tolist(), strict=True))


def space_layer_shares(basis: Basis, layers: Layers, *, params: ParameterFilter = None) -> dict[str, Tensor]:
    """Share of the top-k eigenspace in each tensor, for every k: its overlap with the whole tensor as a mask, (K,) float64.

    They sum to 1 for each k; chance is the tensor's share of the parameters.

    Cost: one read of V.

    >>> shares = space_layer_shares(torch.eye(3)[:, [0, 2]], {"a": torch.zeros(2), "b": torch.zeros(1)})
    >>> {name: share.tolist() for name, share in shares.items()}
    {'a': [1.0, 0.5], 'b': [0.0, 0.5]}
    """
    parameters, vectors = layout(layers, params=params), columns(basis)
    owner = layer_index(parameters, vectors.shape[0])
    sums = torch.zeros(len(parameters.names), vectors.shape[1], dtype=torch.float64, device="cpu")
    for panel in vectors.panels():
        sums.index_add_(0, owner[panel], vectors.rows(panel).abs().double().square().cpu())
    shares = sums.cumsum(1) / torch.arange(1, vectors.shape[1] + 1, device="cpu")
    return dict(zip(parameters.names, shares, strict=True))


def _squares(vector: Tensor) -> Tensor:
    if not isinstance(vector, Tensor):
        raise InvalidType(f"concentration of a {type(vector).__name__}: pass a tensor (D,)")
    squares = vector.detach().reshape(-1).abs().double().square().cpu()
    if not bool(torch.isfinite(squares).all()):
        raise NotFinite("the vector holds NaN or infinity: load a checkpoint from before training diverged")
    if not float(squares.sum()) > 0:
        raise InvalidArgument("the vector is zero: nothing is concentrated")
    return squares


def _moments(vectors: Basis, moment: Callable[[Tensor], Tensor], combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """``combine(sum of squares, sum of moment(squares))`` for each column, panel by panel."""
    matrix: TallMatrix = columns(vectors)
    total = torch.zeros(2, matrix.shape[1], dtype=torch.float64, device="cpu")
    for panel in matrix.panels():
        squares = matrix.rows(panel).abs().double().square().cpu()
        total[0] += squares.sum(dim=0)
        total[1] += moment(squares).sum(dim=0)
    return combine(*total)
