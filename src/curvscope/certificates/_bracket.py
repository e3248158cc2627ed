"""An interval that holds the overlap of the true top-k eigenspace with a mask: no gap at k is needed."""

from __future__ import annotations

import torch
from torch import Tensor

from curvscope.certificates._certificate import Certificate


def captured_mass(rows: Tensor) -> Tensor:
    """(K, K) float64 with entry (k - 1, l - 1) the squared mass of the first l columns on the first k rows.

    Args:
        rows: (K, K), the K first rows of a ranking of orthonormal columns.

    >>> captured_mass(torch.eye(2)).tolist()
    [[1.0, 1.0], [1.0, 2.0]]
    """
    return rows.abs().double().cpu().square().cumsum(0).cumsum(1)


def overlap_bracket(captured: Tensor, certificate: Certificate, *, defect: float = 0.0) -> tuple[Tensor, Tensor]:
    r"""Lower and upper bounds for the overlap of the true top-k eigenspace with the k-mask, k = 1, ..., K.

    With :math:`c_{kl} = \|\Phi_k V_l\|_F^2` and :math:`\beta_{kl} = \min(1, \sqrt{c_{kl}})`, for every j <= k and every l >= k,

    .. math::

        \sqrt{k\, o_k} &\ge \max\Big(\sqrt{c_{kj}} - s_j,\;
            \sqrt{(c_{kj} - 2 \beta_{kj} m_{kl} s_j)_+} - \beta_{kk} s_k s_j - t_{kl}\Big)

        \sqrt{k\, o_k} &\le \min\Big(\sqrt{c_{kl}} + t_{kl},\; \sqrt{c_{kk}} + s_k,\;
            \sqrt{c_{kk} + 2 \beta_{kk} m_{kl} s_k + m_{kl}^2 s_k^2} + t_{kl}\Big)

    where s_j bounds the sines of the first j columns towards the eigenvectors beyond k,
    :math:`t_{kl} = \|R_l\|_F / (|\theta_k| - \|R_k\|_F - h_l)` what the top k eigenvectors have outside the first l columns
    (h_l bounds the norm of A there; infinite unless the denominator is positive), and :math:`m_{kl}^2 = c_{kl} - c_{kk}` the
    mass of the columns k+1..l on the mask. For each k the best j is taken, and an l that is best or nearly so. No gap at k is
    needed: columns that cannot be told from the k-th cost only as much as they overlap with the mask.

    Args:
        captured: (K, L) float64, entry (k - 1, l - 1) is c_{kl}; K <= L.
        certificate: of the same L pairs.
        defect: ||V* V - I||_2; it widens the interval by that factor.

    Returns:
        lower and upper, (K,) each, in [0, 1]; (0, 1) where nothing can be proven.

    Cost: O(K L) numbers, no products.
    Source: design of this library; the proofs use only Weyl's inequality and the Sylvester equation. What leaves V_k along
        the columns k+1..l meets the mask there only; the rest of the leak is t. It assumes 0 <= Phi <= I, so it holds for any
        projector in place of the mask.

    >>> import curvscope as cs
    >>> A = torch.diag(torch.tensor([5.0, -4.0, 3.0, 0.5, 0.1], dtype=torch.float64))
    >>> solution = cs.certify(A, cs.eigsh(A, k=2))
    >>> rows = solution.eigenvectors.rows(torch.tensor([0, 4]))    # the mask's parameters, in its order
    >>> lower, upper = overlap_bracket(captured_mass(rows), solution.certificate)
    >>> [round(float(end), 6) for end in (lower[1], upper[1])]
    [0.5, 0.5]
    """
    k = torch.arange(1, len(captured) + 1, dtype=torch.float64, device="cpu")
    roots = captured.clamp(min=0).sqrt()
    lower = (_lower(roots, certificate).square() / k * (1 - 2 * defect)).clamp(0, 1)
    upper = (_upper(roots, certificate).square() / k * (1 + 2 * defect)).clamp(0, 1)
    return lower, upper


def _lower(roots: Tensor, certificate: Certificate) -> Tensor:
    """Sqrt of the lower bounds of k o_k."""
    bounds = []
    for k in range(1, len(roots) + 1):
        sines, masses = certificate.squared_sines(k).cumsum(0).sqrt(), roots[k - 1, :k]
        beside, leaks = _beside(roots, k), _leaks(certificate, k)
        best = (beside * sines[-1] + leaks).argmin()  # one l for all j: nearly as good, and k times cheaper
        met = (masses.square() - 2 * masses.clamp(max=1) * beside[best] * sines).clamp(min=0).sqrt()
        returned = masses[-1].clamp(max=1) * sines[-1] * sines
        bounds.append(torch.maximum(masses - sines, met - returned - leaks[best]).max().clamp(min=0))
    return torch.stack(bounds)


def _upper(roots: Tensor, certificate: Certificate) -> Tensor:
    """Sqrt of the upper bounds of k o_k."""
    bounds = []
    for k in range(1, len(roots) + 1):
        leaks, sine, own = _leaks(certificate, k), certificate.space_sine(k), roots[k - 1, k - 1]
        met = _beside(roots, k) * sine
        met = (own.square() + 2 * own.clamp(max=1) * met + met.square()).sqrt()
        around = torch.minimum(roots[k - 1, k - 1 :], met) + leaks
        bounds.append(torch.minimum(around.min(), own + sine).clamp(max=float(k) ** 0.5))
    return torch.stack(bounds)


def _leaks(certificate: Certificate, k: int) -> Tensor:
    """t_kl for l = k..L: how much of the top k eigenvectors lies outside the first l columns."""
    smallest = certificate.magnitudes[k - 1] - certificate.heads[k - 1]  # at most |lambda_k|, by compression
    distance = smallest - certificate.outside[k - 1 :]
    return torch.where(distance > 0, certificate.heads[k - 1 :] / distance, torch.inf)


def _beside(roots: Tensor, k: int) -> Tensor:
    """m_kl for l = k..L: the mass of the columns k+1..l on the mask of size k, its root."""
    squares = roots[k - 1, k - 1 :].square()
    return (squares - squares[0]).clamp(min=0).sqrt()
