"""Eigenpairs for an overlap: more of them, and more exactly, until its interval is narrow enough."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, TypedDict, Unpack

from curvscope.errors import InvalidArgument
from curvscope.measurement import Place, check_recipe, was_begun
from curvscope.operators import as_operator
from curvscope.solvers.certification import certify, check_ranking, until_bracketed
from curvscope.solvers.driver import EigenProblem, Resources, check_fit, check_operator, check_request
from curvscope.solvers.krylov import Krylov
from curvscope.solvers.results import Solution
from curvscope.store import Run
from curvscope.system import Progress, checked


class KrylovKeywords(TypedDict, total=False):
    """Options of :class:`curvscope.Krylov`, by keyword."""

    ncv: int | None
    block_size: int | None
    max_products: int | None
    keep_basis: bool


@checked
def eigsh_for_overlap(  # noqa: PLR0913 -- a public function: request and resources, by keyword
    operator: Any,
    ranking: Any,
    k: int,
    *,
    rtol: float = 1e-2,
    tol: float = 1e-3,
    seed: int = 0,
    preflight: bool = True,
    memory: int | str | None = None,
    run: Place | Run | None = None,
    executor: Any = None,
    progress: Progress = None,
    **options: Unpack[KrylovKeywords],
) -> Solution:
    """Eigenpairs of largest magnitude until every overlap up to k is known to a relative half-width of ``rtol``.

    Block Krylov is continued from its own basis, with more pairs and smaller residuals than asked for, until the certified
    interval of the overlap with the mask of the k' first parameters is narrow enough for every k' <= k.

    Args:
        operator: as for :func:`curvscope.eigsh`.
        ranking: of the D parameters, as from ``cs.masks``.
        k: overlaps wanted.
        rtol: half-width of the interval over the overlap, below 1.
        tol: of the residuals in the first round; at most 1e-3 is used.
        seed: of the random start and of the certificates.
        preflight: see :func:`curvscope.eigsh`.
        memory: see there.
        run: see there.
        executor: who computes the products of the solves; see there. Certificates are computed here.
        progress: see :data:`.progress.Progress`.
        options: of :class:`curvscope.Krylov`.

    Returns:
        A solution with its certificate and **all pairs that were needed**: ``solution.k >= k``. Its status says how wide the
        widest interval is, and is "partly" where one is too wide.

    Raises:
        InvalidArgument: as :func:`curvscope.eigsh`; not a ranking of D parameters.

    Cost: one solve for the pairs of the last round, and a certificate (pairs + 69 products) a round, at most 6 rounds.

    >>> import torch, curvscope as cs
    >>> A = torch.diag(0.5 ** torch.arange(60.0, dtype=torch.float64))
    >>> solution = eigsh_for_overlap(A, cs.masks.random(60), 3)
    >>> solution.k >= 3, solution.certificate is not None
    (True, True)
    """
    operator = as_operator(operator)
    check_operator(operator)
    check_request(k, operator.shape[0], which="LM", method="krylov", tol=tol)
    order = check_ranking(ranking, operator.shape[0], rtol)
    method, resources = Krylov(**options), Resources(memory, run, executor, progress)
    check_recipe(operator, executor)
    if preflight and not was_begun(run, operator):
        check_fit(operator)
    if method.keep_basis and run is not None:
        raise InvalidArgument("keep_basis and run: the run keeps the basis, leave keep_basis out")
    iterated = replace(method, keep_basis=run is None)

    def solve_for(pairs: int, tol: float, earlier: Solution | None) -> Solution:
        """A solve that continues an earlier one; in a run, what the run has."""
        problem = EigenProblem(operator, pairs, "LM", tol, seed, earlier if run is None else None)
        return iterated.solve(problem, resources)

    proven = partial(certify, operator, seed=seed, memory=memory, progress=progress)
    found = until_bracketed(solve_for, proven, k, order, rtol=rtol, tol=min(tol, 1e-3))
    return found if method.keep_basis else replace(found, basis=None)
