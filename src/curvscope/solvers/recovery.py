"""From measurements of an operator to its factors: pure functions that never see the operator."""

from __future__ import annotations

import torch
from torch import Tensor


def hermitian_core(left: Tensor, inner: Tensor, right: Tensor) -> tuple[Tensor, float]:
    r"""The core C of A ~ Q C Q*, from inner measurements, by two least-squares problems.

    .. math:: C = (\Psi^* Q)^+ \, (\Psi^* A \Omega) \, (Q^* \Omega)^+

    symmetrised. For an exactly Hermitian A in the span of Q the raw core is Hermitian; how far it is from that tells how good
    the sketch is.

    Args:
        left: Psi* Q, (n_inner, n_outer).
        inner: Psi* A Omega, (n_inner, n_inner).
        right: Q* Omega, (n_outer, n_inner).

    Returns:
        (C + C*)/2, (n_outer, n_outer), and ||C - C*||_F / ||C||_F (0 when C is 0).

    Cost: O(n_inner^2 n_outer), all in double precision.
    Source: Fernandez et al. (2025), Alg. 2; Tropp, Yurtsever, Udell, Cevher (2019), section 2.

    >>> q = torch.eye(3, dtype=torch.float64)[:, :2]
    >>> core, asymmetry = hermitian_core(q, torch.diag(torch.tensor([2.0, -1.0, 0.0], dtype=torch.float64)), q.T)
    >>> core.diagonal().tolist(), asymmetry
    ([2.0, -1.0], 0.0)
    """
    half = torch.linalg.lstsq(left, inner, driver="gelsd").solution
    core = torch.linalg.lstsq(right.mH, half.mH, driver="gelsd").solution.mH
    norm = float(core.norm())
    asymmetry = float((core - core.mH).norm()) / norm if norm else 0.0
    return (core + core.mH) / 2, asymmetry
