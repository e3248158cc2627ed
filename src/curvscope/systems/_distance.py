"""How far -damping is from the spectrum of A, as far as that is proven."""

from __future__ import annotations

import torch
from torch import Tensor

from curvscope.certificates import Certificate, EndCertificate
from curvscope.operators.base import Operator
from curvscope.solvers import Solution

Known = Solution | float | None


def proven_distance(operator: Operator, damping: float, solutions: list[Known]) -> tuple[float, str]:
    """Return a lower bound for the least magnitude of an eigenvalue of A + damping I, and what proves it.

    0 with an empty text: nothing is known. A number among the solutions is a lower bound of A's eigenvalues that the caller
    knows; a solution counts if it has a certificate.
    """
    found = [(damping, "the matrix is positive semidefinite")] if operator.semidefinite else []
    for known in solutions:
        if isinstance(known, Solution) and known.certificate is not None:
            found.append(_certified(known.certificate, damping))
        elif isinstance(known, float | int):
            found.append((known + damping, f"no eigenvalue below {known:g}, as you said"))
    distance, why = max(found, default=(0.0, ""), key=lambda one: one[0])
    return (distance, why) if distance > 0 else (0.0, "")


def _certified(certificate: Certificate, damping: float) -> tuple[float, str]:
    r"""Return the distance by Weyl's theorem: A's eigenvalues match those of the pairs and of the block outside, within rho.

    That block's eigenvalues lie in [below, above]. rho = sqrt 2 ||R||_F, see :class:`.Certificate`.
    """
    if isinstance(certificate, EndCertificate):
        below, above = certificate.below, certificate.above
    else:
        above = certificate.tail.bound + certificate.noise.floor
        below = -above
    values: Tensor = certificate.eigenvalues + damping
    to_pairs = float(values.abs().min()) if len(values) else torch.inf
    nothing_outside = certificate.tail.products == 0
    to_rest = torch.inf if nothing_outside else max(below + damping, -(above + damping))
    rho = float(certificate.rho[-1]) if len(values) else 0.0
    unless = f", except with probability {certificate.tail.failure:g}" if certificate.tail.failure else ""
    return min(to_pairs, to_rest) - rho, f"the certificate of {len(values)} pairs{unless}"
