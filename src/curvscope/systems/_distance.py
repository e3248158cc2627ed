"""How far -damping is from the spectrum of A, as far as that is proven."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from curvscope.certificates import Certificate, EndCertificate
from curvscope.operators.base import Operator
from curvscope.solvers import Solution

Known = Solution | float | None


class Proven(NamedTuple):
    """What is proven of the spectrum of A + damping I.

    Attributes:
        distance: lower bound for the least magnitude of an eigenvalue; 0: nothing is known.
        proof: what proves it, in words; empty where nothing does.
        is_positive: whether no eigenvalue is negative.
    """

    distance: float
    proof: str
    is_positive: bool


def proven_distance(operator: Operator, damping: float, solutions: list[Known]) -> Proven:
    """Return the largest distance of -damping to the spectrum of A that is proven.

    A number among the solutions is a lower bound of A's eigenvalues that the caller knows; a solution counts if it has a
    certificate.
    """
    found = [Proven(damping, "the matrix is positive semidefinite", True)] if operator.semidefinite else []
    for known in solutions:
        if isinstance(known, Solution) and known.certificate is not None:
            found.append(_certified(known.certificate, damping))
        elif isinstance(known, float | int):
            found.append(Proven(known + damping, f"no eigenvalue below {known:g}, as you said", True))
    best = max(found, default=Proven(0.0, "", False), key=lambda one: one.distance)
    return best if best.distance > 0 else Proven(0.0, "", False)


def _certified(certificate: Certificate, damping: float) -> Proven:
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
    is_positive = (not len(values) or float(values.min()) > 0) and (nothing_outside or below + damping > 0)
    return Proven(min(to_pairs, to_rest) - rho, f"the certificate of {len(values)} pairs{unless}", is_positive)
