"""The one entry for eigenpairs of Hermitian operators."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.measurement import Meter, Place, begun_with, check_recipe, was_begun
from curvscope.operators import as_operator, operator_differences
from curvscope.operators.base import Operator
from curvscope.operators.fingerprint import fingerprint
from curvscope.parallel import as_workers
from curvscope.solvers._exact import exact
from curvscope.solvers.certification import certify, check_ranking, until_bracketed
from curvscope.solvers.driver import Pairs, check_fit, check_operator, check_request, solve
from curvscope.solvers.krylov import Expansion, KrylovOptions, Loop, block_krylov, krylov_options
from curvscope.solvers.results import Solution
from curvscope.solvers.sizing import default_width, fit, footprint, multiple_of, sizes_for_pairs
from curvscope.solvers.sketched import hmt, nystrom, seigh, singlepass
from curvscope.store import Run
from curvscope.system import Progress, checked
from curvscope.tall import TallMatrix

EXACT_UP_TO = 1500
"""D up to which "auto" forms the matrix."""


@checked
def eigsh(
    operator: Any,
    k: int,
    *,
    which: str = "LM",
    method: str = "auto",
    tol: float = 1e-3,
    block_size: int | None = None,
    ncv: int | None = None,
    max_products: int | None = None,
    seed: int = 0,
    v0: Tensor | TallMatrix | Solution | None = None,
    keep_basis: bool = False,
    certify_overlap: Any = None,
    rtol: float = 1e-2,
    preflight: bool = True,
    memory: int | str | None = None,
    run: Place | Run | None = None,
    executor: Any = None,
    progress: Progress = None,
) -> Solution:
    """The k wanted eigenpairs of a Hermitian operator, each with the residual that fresh products gave.

    Args:
        operator: D x D, real symmetric or complex Hermitian; anything that :func:`curvscope.as_operator` takes.
        k: number of pairs, 1 to D.
        which: "LM" (largest magnitude first, the papers' order), "LA", "SA", "BE"; see :data:`.ordering.ORDERS`.
        method: "krylov" (randomized block Krylov with thick restart), "exact" (dense, float64), "seigh" (alias "oversampled":
            single-pass sketch, the paper's Alg. 2), "hmt" (two-pass sketch), "singlepass", "nystrom" (best for positive
            semidefinite operators), or "auto": exact up to D = 1500, otherwise krylov.
        tol: a pair has converged when its residual is at most tol |lambda| (or 10 u ||A||, what rounding allows). 0: use the
            whole of max_products.
        block_size: vectors multiplied at a time: narrow blocks need fewer products, wide ones are cheaper each. Default: from
            k, see :func:`.width.default_width`; blocks get wider where copies of eigenvalues are found. A narrower last block
            uses up the budget exactly.
        ncv: most columns of the basis; default 3 k + 20 block_size.
        max_products: budget, residual measurement (k more) not counted; default max(5000, 100 k) for krylov, 4 k for sketches.
        seed: of the random start.
        v0: what krylov starts from: a block (D,) or (D, b), or an earlier solution. One of this very operator that was made
            with ``keep_basis`` is gone on with, to more pairs or a smaller tol, without losing a product; of any other its
            eigenvectors start anew.
        keep_basis: keep the Krylov basis (D x ncv numbers) in ``solution.basis``, to go on from.
        certify_overlap: a ranking of the D parameters, as from :mod:`.subspaces.masks`. Krylov then goes on, with more pairs
            and smaller residuals than asked for, until the interval of the overlap with the mask of the k' first is narrow
            enough for every k' <= k; the solution has a certificate and keeps the further pairs (``solution.k >= k``).
        rtol: half-width of that interval, over the overlap.
        preflight: check first that a curvature operator is one fixed symmetric matrix; see :func:`.checks.check_fit`.
        memory: bound for the resident memory of the whole process, products included ("8GiB" or bytes); default: what it has
            and 0.8 of what is free. Block size, and with ``run`` whether matrices lie in memory or on disk, are chosen so that
            it holds; what cannot fit is refused before any product. With an operator on a GPU they lie there where 0.8 of what
            is free holds them; else this bounds them on the host.
        run: a directory that keeps everything as it comes: manifest, products or basis, results. Killed at any moment, the
            same call goes on and loses at most one block; the result has the same bits as without the interruption. Asked for
            more pairs (or a larger sketch, a smaller tol), it goes on from what it has. Ctrl-C ends it after the block in hand.
        executor: who computes the products: an executor of ``concurrent.futures``, a ``dask.distributed.Client``, or
            :class:`curvscope.Workers`; each builds the operator once, from its :class:`curvscope.Recipe`. Results are equal to
            rounding, and a run may go on with other workers or with none. None: this process.
        progress: None: a bar on a terminal; True, False, or a callback (stage, done, total, note).

    Returns:
        A :class:`Solution`; one that did not converge holds what there is, and its status says what to do.

    Raises:
        InvalidArgument, InvalidType: k, which, method, tol, v0 or sizes that cannot work, an operator that is not square,
            symmetric and real.
        UnfitOperator: the preflight failed; cause and remedy are named. NotHermitian: the products show that it is not
            symmetric. NotFinite: a product has NaN in it. OutOfBudget: a dense solve that does not fit.
        RunConflict: the run is another solve's, each difference is named; or another process works on it. DamagedData: a file
            of its basis was altered (products are measured again instead). OutOfDisk: no room; what was written is kept.

    Cost: see :func:`.block_krylov.block_krylov`, :func:`.exact.exact`, :func:`.seigh.seigh`, :func:`.hmt.hmt`,
        :func:`.nystrom.nystrom`, :func:`.singlepass.singlepass`; and k products for the residuals.

    >>> import torch
    >>> solution = eigsh(torch.diag(torch.tensor([3.0, -5.0, 1.0, 0.5])), k=2)
    >>> solution.eigenvalues.tolist(), solution.status.converged
    ([-5.0, 3.0], True)
    """
    operator = as_operator(operator)
    check_operator(operator, real=method in ("hmt", "nystrom", "singlepass"))
    size = operator.shape[0]
    check_request(k, size, which=which, method=method, tol=tol)
    if method == "auto":
        plain = v0 is None and max_products is None and not keep_basis and certify_overlap is None
        method = "exact" if size <= EXACT_UP_TO and plain else "krylov"
    if method != "krylov":
        _refuse(method, v0=v0, ncv=ncv, keep_basis=keep_basis or None, certify_overlap=certify_overlap)
    if keep_basis and run is not None:
        raise InvalidArgument("keep_basis and run: the run keeps the basis, leave keep_basis out")
    if certify_overlap is not None:
        if which != "LM":
            raise InvalidArgument(f'certify_overlap is about the largest magnitudes: use which="LM", not {which!r}')
        order = check_ranking(certify_overlap, size, rtol)
    check_recipe(operator, executor)
    if preflight and not was_begun(run, operator):
        check_fit(operator)
    if method == "exact":
        _refuse(method, max_products=max_products)
        return exact(operator, k, which=which, memory=memory, run=run, executor=executor, progress=progress)
    fixed = block_size or begun_with(run, "block_size")
    width = block_size if block_size is not None else fixed
    if executor is not None and block_size is None and begun_with(run, "block_size") is None:
        width = multiple_of(width or default_width(k), as_workers(executor).expected, size)
    place = Placing(width, block_size, memory, run, executor)
    if certify_overlap is not None:

        def solve_for(pairs: int, tol: float, earlier: Solution | None) -> Solution:
            """A solve that goes on from an earlier one."""
            start = v0 if earlier is None or run is not None else earlier
            return _krylov(operator, pairs, which, tol, place, ncv, max_products, seed, start, run is None, progress)

        bracketed = until_bracketed(
            solve_for,
            lambda found: certify(operator, found, seed=seed, memory=memory, progress=progress),
            k,
            order,
            rtol=rtol,
            tol=min(tol, 1e-3),
        )
        return bracketed if keep_basis else replace(bracketed, basis=None)
    if method == "krylov":
        return _krylov(operator, k, which, tol, place, ncv, max_products, seed, v0, keep_basis, progress)
    return _sketched(operator, k, method, which, max_products, seed, place, progress)


class Placing(NamedTuple):
    """Width of the blocks of a solve, the place of its matrices, and who multiplies."""

    width: int | None
    asked: int | None
    memory: int | str | None
    run: Place | Run | None
    executor: Any = None


def _sketched(
    operator: Operator,
    k: int,
    method: str,
    which: str,
    max_products: int | None,
    seed: int,
    place: Placing,
    progress: Progress,
) -> Solution:
    """A sketch with the sizes that a budget of products suggests, for k pairs."""
    sizes = sizes_for_pairs(method, k, operator.shape[0], max_products)
    where = {"block_size": place.asked, "memory": place.memory, "run": place.run, "executor": place.executor}
    options = {"k": k, "which": which, "seed": seed, "progress": progress, **where}
    match method:
        case "hmt":
            return hmt(operator, num_outer=sizes.num_outer, **options)
        case "nystrom":
            return nystrom(operator, num_outer=sizes.num_outer, **options)
        case "singlepass":
            return singlepass(operator, num_products=sizes.num_outer, **options)
    return seigh(operator, num_outer=sizes.num_outer, num_inner=sizes.num_inner, **options)


def _krylov(
    operator: Operator,
    k: int,
    which: str,
    tol: float,
    place: Placing,
    ncv: int | None,
    max_products: int | None,
    seed: int,
    v0: Tensor | TallMatrix | Solution | None,
    keep_basis: bool,
    progress: Progress,
) -> Solution:
    earlier = v0 if isinstance(v0, Solution) and _continues(operator, v0) else None
    start = None if earlier else _start_block(operator, v0)
    spent = earlier.cost.products if earlier else 0
    wanted = partial(krylov_request, operator.shape[0], k, which=which, tol=tol, ncv=ncv, max_products=max_products, seed=seed)
    options = wanted(block_size=place.width, spent=spent)
    needs = footprint("krylov", operator, asdict(options), predict=place.memory is not None)
    fixed = place.asked or begun_with(place.run, "block_size")
    fitted = fit(
        needs,
        place.memory,
        block_size=fixed,
        default=options.block_size,
        stored=place.run is not None,
        device=operator.device,
    )
    if fitted.block_size != options.block_size:
        options = wanted(block_size=fitted.block_size, spent=spent)
    plain = {"method": "krylov", **asdict(options)} | ({} if start is None else {"v0": fingerprint(start)})
    kept = []

    def find(meter: Meter) -> Pairs:
        """Iterate: what the session times, keeps and goes on with."""
        expansion, loop = _begun(meter, options, start, earlier)
        if keep_basis:
            kept.append(expansion)
        return block_krylov(meter, options, expansion, loop)

    free = ("k", "tol", "ncv", "max_products")
    where = {"run": place.run, "fitted": fitted, "executor": place.executor}
    solution = solve(operator, find, which=which, options=plain, free=free, progress=progress, **where)
    return replace(
        solution,
        basis=kept[0] if keep_basis else None,
        cost=earlier.cost + solution.cost if earlier else solution.cost,
    )


def krylov_request(size: int, k: int, *, max_products: int | None, **options: Any) -> KrylovOptions:
    """The options of a solve for eigenpairs, with the budget's default; see :func:`.krylov_basis.krylov_options`."""
    return krylov_options(size, k, max_products=max(5000, 100 * k) if max_products is None else max_products, **options)


def _begun(
    meter: Meter, options: KrylovOptions, start: Tensor | None, earlier: Solution | None
) -> tuple[Expansion, Loop | None]:
    """The expansion to go on with: the run's, an earlier solution's, or a new one; and where its iteration stands."""
    saved = Expansion.saved(meter.operator, options, meter.workspace)
    if saved is not None:
        expansion, facts = saved
        meter.restore(facts["spent"])
        return expansion, Loop.restored(facts["loop"]) if facts["scope"] == meter.workspace.scope else None
    if earlier is not None:
        earlier.basis.adopt(options)
        return earlier.basis, None
    return Expansion(meter.operator, options, start, workspace=meter.workspace), None


def _continues(operator: Operator, earlier: Solution) -> bool:
    """Return whether the basis of an earlier solution can be continued."""
    return earlier.basis is not None and not operator_differences(earlier.provenance, operator)


def _start_block(operator: Operator, v0: Tensor | TallMatrix | Solution | None) -> Tensor | None:
    if v0 is None:
        return None
    source = v0.eigenvectors if isinstance(v0, Solution) else v0
    block = source.to_tensor() if isinstance(source, TallMatrix) else source
    if not isinstance(block, Tensor) or block.is_complex():
        kind = block.dtype if isinstance(block, Tensor) else type(block).__name__
        raise InvalidType(f"v0 is a {kind}: pass a real tensor (torch.as_tensor) or a solution")
    block = block[:, None] if block.ndim == 1 else block
    if block.ndim != 2 or block.shape[0] != operator.shape[0]:
        raise InvalidArgument(f"v0 has shape {tuple(block.shape)}, expected ({operator.shape[0]},) or ({operator.shape[0]}, b)")
    if not bool(block.isfinite().all()) or not bool(block.any()):
        raise InvalidArgument("v0 must be finite and not zero")
    return block.to(operator.device, operator.dtype)


def _refuse(method: str, **options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise InvalidArgument(f'{name} has no meaning for method="{method}": leave it out or use method="krylov"')
