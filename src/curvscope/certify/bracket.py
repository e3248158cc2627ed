"""An interval that holds the overlap of the true top-k eigenspace with a mask: no gap at k is needed."""

from __future__ import annotations

import torch
from torch import Tensor

from curvscope.certify.certificate import Certificate


def captured_mass(rows: Tensor) -> Tensor:
    """(K, K) float64 with entry (k - 1, l - 1) the squared mass of the first l columns on the first k rows.

    Args:
        rows: (K, K), the K first rows of a ranking of orthonormal columns.

    >>> captured_mass(torch.eye(2)).tolist()
    [[1.0, 1.0], [1.0, 2.0]]
    """
    return rows.double().cpu().square().cumsum(0).cumsum(1)


def overlap_bracket(captured: Tensor, certificate: Certificate, *, defect: float = 0.0) -> tuple[Tensor, Tensor]:
    r"""Lower and upper bounds for the overlap of the true top-k eigenspace with the k-mask, k = 1, ..., K.

    With :math:`c_{kl} = \|\Phi_k V_l\|_F^2`, for every j <= k and every l >= k with a positive
    denominator,

    .. math::

        \big(\sqrt{c_{kj}} - s_j\big)_+^2 \;\le\; k\, o_k \;\le\;
        \Big(\sqrt{c_{kl}} + \frac{\|R_l\|_F}{|\theta_k| - \|R_k\|_F - h_l}\Big)^2

    where s_j bounds the sines of the first j columns towards the eigenvectors beyond k, and h_l the norm of A outside the
    first l columns; for l = k, s_k may stand in place of the fraction. The best j and l are taken for each k. What
    gaplessness costs is the overlap carried by directions j..l.

    Args:
        captured: (K, K) float64, entry (k - 1, l - 1) is c_{kl}.
        certificate: of the same K pairs.
        defect: ||V* V - I||_2; it widens the interval by that factor.

    Returns:
        lower and upper, (K,) each, in [0, 1]; (0, 1) where nothing can be proven.

    Cost: O(K^2) numbers, no products.
    Source: design of this library; the proofs use only Weyl's inequality and the Sylvester equation. It assumes
        0 <= Phi <= I, so it holds for any projector in place of the mask.
    """
    k = torch.arange(1, len(captured) + 1, dtype=torch.float64)
    roots = captured.clamp(min=0).sqrt()
    lower = (_lower(roots, certificate).square() / k * (1 - 2 * defect)).clamp(0, 1)
    upper = (_upper(roots, certificate).square() / k * (1 + 2 * defect)).clamp(0, 1)
    return lower, upper


def _lower(roots: Tensor, certificate: Certificate) -> Tensor:
    """Sqrt of the lower bounds of k o_k."""
    bounds = []
    for k in range(1, roots.shape[1] + 1):
        sines = certificate.squared_sines(k).cumsum(0).sqrt()
        bounds.append((roots[k - 1, :k] - sines).max().clamp(min=0))
    return torch.stack(bounds)


def _upper(roots: Tensor, certificate: Certificate) -> Tensor:
    """Sqrt of the upper bounds of k o_k."""
    bounds = []
    for k in range(1, roots.shape[1] + 1):
        smallest = certificate.magnitudes[k - 1] - certificate.heads[k - 1]  # at most |lambda_k|, by compression
        distance = smallest - certificate.outside[k - 1 :]
        leak = torch.where(distance > 0, certificate.heads[k - 1 :] / distance, torch.inf)
        # For l = k the two spaces have one dimension, and ||V_perp* U||_F = ||U_perp* V||_F has the column-wise bound too.
        leak[0] = leak[0].clamp(max=certificate.space_sine(k))
        bounds.append((roots[k - 1, k - 1 :] + leak).min().clamp(max=float(k) ** 0.5))
    return torch.stack(bounds)
