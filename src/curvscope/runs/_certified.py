"""A run that is certified: what of its claims fails, and where the certificate is kept."""

from __future__ import annotations

from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.measurement import CERTIFIED, results_of
from curvscope.solvers import Solution
from curvscope.solvers.certification import product_rounding
from curvscope.store import Run, draft_beside, put_in_place, remove, synchronise_folder
from curvscope.subspaces import LARGEST_DEFECT
from curvscope.tall import gram, orthogonality

REFINED = "refined from"
"""What :func:`curvscope.certify` notes in the provenance of pairs that it improved in higher precision."""


def keep_certificate(run: Run, certified: Solution) -> None:
    """Put a certified solution in the place of the run's own; one with improved pairs beside it, as the last one of these.

    The run's own solution stays what the solver found, so that the run can be resumed. Call it in a session of the run.
    """
    if REFINED not in certified.provenance:
        certified.save_again(results_of(run.path))
        return
    made = draft_beside(run.path / CERTIFIED)
    try:
        certified.save(made)
        synchronise_folder(made)
        put_in_place(made, run.path / CERTIFIED)
    finally:
        remove(made)


def failed_claims(claimed: Solution, certified: Solution) -> list[str]:
    """Return what a run claimed and fresh products do not confirm, one sentence a claim; empty when all holds.

    A residual may exceed the claimed one by half, or by the noise of the products.
    """
    if certified.certificate is None:
        raise InvalidArgument("the solution has no certificate: pass what curvscope.certify returned")
    failed = (_higher if REFINED in certified.provenance else _failed)(claimed, certified)
    if (defect := orthogonality(claimed.eigenvectors)) > LARGEST_DEFECT:
        failed.append(f"the vectors are not orthonormal: max |V'V - I| = {defect:.1e}")
    return failed


def _failed(claimed: Solution, certified: Solution) -> list[str]:
    """For the same pairs, measured afresh."""
    assert certified.certificate is not None
    found = certified.residual_norms
    allowed = 1.5 * claimed.residual_norms + certified.certificate.noise.at(claimed.eigenvalues.abs())
    return [_sentence(i, found, claimed) for i in (found > allowed).nonzero().flatten().tolist()]


def _higher(claimed: Solution, certified: Solution) -> list[str]:
    """For pairs that were improved in the span of the claimed ones, up to the rounding of the products that found these.

    With U and theta the improved pairs, the part of A v - lambda v inside the span is (Theta - lambda) U* v: no product is
    needed to see a wrong pair there. What all leave out together is smallest for the improved ones, so that it may not be more.
    """
    rounding = product_rounding(claimed) * float(claimed.eigenvalues.abs().max())
    turn = gram(certified.eigenvectors, claimed.eigenvectors, double=True)
    inside = ((certified.eigenvalues[:, None] - claimed.eigenvalues) * turn).norm(dim=0)
    worse = inside > 1.5 * claimed.residual_norms + rounding
    failed = [_sentence(i, inside, claimed) for i in worse.nonzero().flatten().tolist()]
    together, said = float(certified.residual_norms.norm()), float(claimed.residual_norms.norm())
    if together > 1.5 * said + claimed.k**0.5 * rounding:
        failed.append(f"all residuals together: {together:.1e}, claimed {said:.1e}")
    return failed


def _sentence(i: int, found: Tensor, claimed: Solution) -> str:
    return f"pair {i + 1}: residual {float(found[i]):.1e}, claimed {float(claimed.residual_norms[i]):.1e}"
