"""The one entry for eigenpairs of Hermitian operators."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, TypedDict, Unpack, overload

from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.measurement import Place, begun_with, check_recipe, was_begun
from curvscope.operators import as_operator
from curvscope.solvers._auto import takes_exact
from curvscope.solvers._exact import Exact
from curvscope.solvers.driver import (
    METHODS,
    EigenProblem,
    Method,
    MethodName,
    Resources,
    canonical_method,
    check_fit,
    check_operator,
    check_request,
)
from curvscope.solvers.krylov import Krylov
from curvscope.solvers.results import Solution
from curvscope.solvers.sketched import HMT, Nystrom, Seigh, SinglePass
from curvscope.store import Run
from curvscope.system import Progress, checked, integer, unknown_argument
from curvscope.tall import TallMatrix

CLASSES: dict[str, type[Krylov | Exact | Seigh | HMT | Nystrom | SinglePass]] = {
    "krylov": Krylov,
    "exact": Exact,
    "seigh": Seigh,
    "oversampled": Seigh,
    "hmt": HMT,
    "nystrom": Nystrom,
    "singlepass": SinglePass,
}
"""Methods by name."""
REAL = ("hmt", "nystrom", "singlepass")


class Options(TypedDict, total=False):
    """Options of a method that is given by name; those of krylov and of the sketches, see their classes."""

    block_size: int | None
    ncv: int | None
    max_products: int | None
    keep_basis: bool
    maxiter: int | None


class AllOptions(Options, total=False):
    """What is left of a call of :func:`eigsh`."""

    return_eigenvectors: bool


class Request(Options, total=False):
    """All options of :func:`eigsh`."""

    which: Literal["LM", "LA", "SA", "BE"]
    method: MethodName | Method
    tol: float
    seed: int
    v0: Tensor | TallMatrix | Solution | None
    preflight: bool
    memory: int | str | None
    run: Place | Run | None
    executor: Any
    progress: Progress


@overload
def eigsh(operator: Any, k: int = 6, *, return_eigenvectors: Literal[False], **options: Unpack[Request]) -> Tensor: ...


@overload
def eigsh(
    operator: Any,
    k: int = 6,
    *,
    which: Literal["LM", "LA", "SA", "BE"] = "LM",
    method: MethodName | Method = "auto",
    tol: float = 1e-3,
    seed: int = 0,
    v0: Tensor | TallMatrix | Solution | None = None,
    preflight: bool = True,
    memory: int | str | None = None,
    run: Place | Run | None = None,
    executor: Any = None,
    progress: Progress = None,
    return_eigenvectors: Literal[True] = True,
    **options: Unpack[Options],
) -> Solution: ...


@checked
def eigsh(  # noqa: PLR0913 -- the door: request, resources and method's options
    operator: Any,
    k: int = 6,
    *,
    which: Literal["LM", "LA", "SA", "BE"] = "LM",
    method: MethodName | Method = "auto",
    tol: float = 1e-3,
    seed: int = 0,
    v0: Tensor | TallMatrix | Solution | None = None,
    preflight: bool = True,
    memory: int | str | None = None,
    run: Place | Run | None = None,
    executor: Any = None,
    progress: Progress = None,
    **options: Unpack[AllOptions],
) -> Solution | Tensor:
    """The k wanted eigenpairs of a Hermitian operator, each with the residual that fresh products gave.

    Args:
        operator: D x D, real symmetric or complex Hermitian; anything that :func:`curvscope.as_operator` takes.
        k: number of pairs, 1 to D.
        which: "LM" (largest magnitude first, the papers' order), "LA", "SA", "BE"; see :data:`.ordering.ORDERS`.
        method: "krylov" (randomized block Krylov with thick restart), "exact" (dense, float64), "seigh" (alias "oversampled":
            single-pass sketch, the paper's Alg. 2), "hmt" (two-pass sketch), "singlepass", "nystrom" (best for positive
            semidefinite operators), or "auto": exact up to D = 1500 where its D products are few or cheap and no option is
            krylov's, otherwise krylov. Or an object with the method's own options: :class:`curvscope.Krylov`,
            :class:`curvscope.Exact`, :class:`curvscope.Seigh`, :class:`curvscope.HMT`, :class:`curvscope.Nystrom`,
            :class:`curvscope.SinglePass`.
        tol: a pair has converged when its residual is at most tol |lambda| (or 10 u ||A||, what rounding allows). 0: use the
            whole of max_products.
        seed: of the random start.
        v0: what krylov starts from: a block (D,) or (D, b), or an earlier solution. One of this very operator that was made
            with ``keep_basis`` is continued, to more pairs or a smaller tol, without losing a product; of any other its
            eigenvectors start anew.
        preflight: check first that a curvature operator is one fixed symmetric matrix; see :func:`.checks.check_fit`.
        memory: bound for the resident memory of the whole process, products included ("8GiB" or bytes); default: what it has
            and 0.8 of what is free. Block size, and with ``run`` whether matrices lie in memory or on disk, are chosen so that
            it holds; what cannot fit is refused before any product. With an operator on a GPU they lie there where 0.8 of what
            is free holds them; else this bounds them on the host.
        run: a directory that keeps everything as it comes: manifest, products or basis, results. Killed at any moment, the
            same call resumes and loses at most one block; the result has the same bits as without the interruption. Asked for
            more pairs (or a larger sketch, a smaller tol), it continues from there. Ctrl-C ends it after the block in hand.
        executor: who computes the products: an executor of ``concurrent.futures``, a ``dask.distributed.Client``, or
            :class:`curvscope.Workers`; each builds the operator once, from its :class:`curvscope.Recipe`. Results are equal to
            rounding, and a run may resume with other workers or with none. None: this process.
        progress: None: a bar in a terminal or notebook, else lines of the log; True, False, or a callback; see
            :data:`curvscope.execution.Progress`.
        options: those of the method, where it is given by name: block_size and max_products of all, ncv and keep_basis of
            "krylov"; see its class. ``maxiter`` is SciPy's, as the products of so many of its restarts;
            with ``return_eigenvectors=False`` the (k,) eigenvalues alone are returned, in the order of ``which``.

    Returns:
        A :class:`Solution`; one that did not converge holds what there is, and its status says what to do.

    Raises:
        InvalidArgument, InvalidType: k, which, method, tol, v0, options or sizes that cannot work, an operator that
            is not square, symmetric and real.
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
    >>> eigsh(torch.diag(torch.arange(9.0)), k=2, method=Krylov(block_size=2)).status.converged
    True
    """
    operator = as_operator(operator)
    method = canonical_method(method) if isinstance(method, str) else method
    named = method if isinstance(method, str) else getattr(method, "name", "")
    check_operator(operator, real=named in REAL)
    check_request(k, operator.shape[0], which=which, method=method if isinstance(method, str) else "auto", tol=tol)
    whole = options.pop("return_eigenvectors", True)
    if not isinstance(whole, bool):
        raise InvalidArgument(f"return_eigenvectors={whole!r}: choose True or False")
    if method == "auto":
        begun = begun_with(run, "method")  # by an earlier version, which may have chosen otherwise
        iterated = v0 is not None or options.get("keep_basis") or not _all_none(options, "ncv", "max_products", "maxiter")
        small = begun == "exact" if begun in ("exact", "krylov") else takes_exact(operator, k)
        method = "exact" if small and not iterated else "krylov"
    solver = chosen_method(method, with_products(dict(options), k))
    if v0 is not None and solver.name != "krylov":
        raise _inapplicable("v0", solver.name)
    check_recipe(operator, executor)
    if preflight and not was_begun(run, operator):
        check_fit(operator)
    problem = EigenProblem(operator, k, which, tol, seed, v0)
    solution = solver.solve(problem, Resources(memory, run, executor, progress))
    return solution if whole else solution.eigenvalues


def with_products(options: dict[str, Any], k: int) -> dict[str, Any]:
    """Return options with SciPy's ``maxiter`` as ``max_products``.

    SciPy's ``eigsh`` multiplies ncv vectors, and ncv - k at each restart, with ncv = max(2 k + 1, 20) unless it is given.

    Raises:
        InvalidArgument: both are given.
    """
    restarts = options.pop("maxiter", None)
    if restarts is None:
        return options
    if options.get("max_products") is not None:
        raise InvalidArgument(f"maxiter={restarts} beside max_products={options['max_products']}: pass one of them")
    ncv = options.get("ncv") or max(2 * k + 1, 20)
    return {**options, "max_products": ncv + integer("maxiter", restarts) * max(1, ncv - k)}


def _all_none(options: Mapping[str, Any], *names: str) -> bool:
    return all(options.get(name) is None for name in names)


def chosen_method(method: str | Method, options: dict[str, Any]) -> Method:
    """Return the method as an object.

    Args:
        method: a name, or the object.
        options: of a method that is given by name; numbers that are None count as not given.

    Raises:
        InvalidType: an option that no method has, or an object that is no method. InvalidArgument: one of another method.
    """
    for name in options:
        if name not in Options.__annotations__:
            raise InvalidType(_unknown(name))
    given = {name: value for name, value in options.items() if value is not None or name == "keep_basis"}
    if not isinstance(method, str):
        if not isinstance(method, tuple(CLASSES.values())):
            raise InvalidType(f"method is of type {type(method).__name__}: pass cs.Krylov(...) or one of {', '.join(METHODS)}")
        if given:
            name = next(iter(given))
            kind = type(method).__name__
            raise InvalidArgument(f"{name} beside a method object: write method=cs.{kind}({name}=...)")
        return method
    if given.get("keep_basis") is False:
        del given["keep_basis"]
    known = {field.name for field in fields(CLASSES[method])}
    for name in given:
        if name not in known:
            raise _inapplicable(name, method)
    return CLASSES[method](**given)


def _inapplicable(name: str, method: str) -> InvalidArgument:
    return InvalidArgument(f'{name} has no meaning for method="{method}": leave it out or use method="krylov"')


def _unknown(name: str) -> str:
    """The message for an option that no method has."""
    if name in ("certify_overlap", "rtol"):
        return f"eigsh has no argument {name!r}: use cs.eigsh_for_overlap(operator, ranking, k, rtol=1e-2)"
    owners = [kind.__name__ for kind in CLASSES.values() if name in {field.name for field in fields(kind)}]
    if owners:
        return f"eigsh has no argument {name!r}: write method=cs.{owners[0]}({name}=...)"
    own = [parameter for parameter in inspect.signature(eigsh).parameters if parameter != "options"]
    return unknown_argument("eigsh", name, list(dict.fromkeys([*own, *Options.__annotations__])))
