"""What a solve will take, before it is begun: products, time by stage, memory and disk, for every method that fits."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, OutOfBudget
from curvscope.measurement import BLOCKS_EACH, WIDEST_BLOCK, Fit, Place, nearest_folder
from curvscope.operators import as_operator
from curvscope.operators.base import Operator
from curvscope.solvers._auto import takes_exact
from curvscope.solvers._eigsh import eigsh
from curvscope.solvers._exact import bytes_needed
from curvscope.solvers.driver import EigenProblem, MethodName, Resources, canonical_method, check_operator, check_request
from curvscope.solvers.krylov import Krylov, krylov_options
from curvscope.solvers.planning._forecast import known_eigenvalues, krylov_products
from curvscope.solvers.planning._rehearsal import rehearse
from curvscope.solvers.planning._result import MethodPlan, Plan
from curvscope.solvers.planning._timing import Timing
from curvscope.solvers.results import Solution
from curvscope.solvers.sizing import Footprint, default_width, fit, footprint, multiple_of, sizes_for_pairs
from curvscope.store import Run
from curvscope.system import as_text, checked, resident_bytes

PLANNED = ("krylov", "seigh", "hmt", "nystrom", "singlepass", "exact")
SPREAD = 1.5
"""Factor by which a predicted time may be off."""
LONGEST_EXACT = 20_000


@checked
def plan(  # noqa: PLR0913 -- a public function: request and resources, by keyword
    operator: Any,
    k: int,
    *,
    method: MethodName = "auto",
    tol: float = 1e-3,
    block_size: int | None = None,
    ncv: int | None = None,
    max_products: int | None = None,
    memory: int | str | None = None,
    run: Place | None = None,
    workers: int = 1,
    spectrum: Any = None,
) -> Plan:
    """Products, time by stage, peak memory and disk that :func:`curvscope.eigsh` would take, without doing it.

    Times two blocks of products (after a first one, that also traces), watches what memory they take, and rehearses the
    rest of each method at a small size with an operator that costs nothing, on the disk of ``run`` where matrices would lie
    there.

    Args:
        operator: anything that ``as_operator`` takes.
        k: number of pairs.
        method: one, or "auto" for all that are sensible.
        tol: as for ``eigsh``.
        block_size: as for ``eigsh``.
        ncv: as for ``eigsh``.
        max_products: as for ``eigsh``; with tol=0 krylov takes exactly these.
        memory: as for ``eigsh``.
        run: where the run would be; None: in memory only.
        workers: how many would compute the products, each as fast as this process does now; see :class:`.Workers`. All else
            stays with this process, which also sends and receives every column.
        spectrum: what is known of the eigenvalues, for krylov's products: an earlier :class:`.Solution` (of the same network at
            another step of its training, say) or a vector of the largest in magnitude, k or better more. See
            :func:`.forecast.forecast_products`.

    Returns:
        A :class:`Plan`; ``print`` shows it. Times are right within a factor of 1.5, memory within a quarter; how many products
        krylov needs depends on the spectrum, and its range says so: wide if nothing is known of it.

    Cost: up to 70 products, fewer where they are slow, and seconds for the rehearsal and, with ``spectrum``, the forecast.

    Raises:
        InvalidArgument: as ``eigsh``; a spectrum that is not k to D real numbers.

    >>> made = plan(torch.diag(torch.arange(1.0, 301.0)), 5)
    >>> made.chosen, made["exact"].products
    ('exact', (305, 305, 305))
    """
    operator = as_operator(operator)
    check_operator(operator)
    method = canonical_method(method)
    check_request(k, operator.shape[0], which="LM", method=method, tol=tol)
    if workers < 1:
        raise InvalidArgument(f"workers={workers}: choose at least 1")
    names = PLANNED if method == "auto" else ("seigh" if method == "oversampled" else method,)
    known = None if spectrum is None else known_eigenvalues(spectrum, k, operator.shape[0])
    timing = Timing(operator)
    request = _Request(operator, k, Resources(memory, run), workers, known, tol, block_size, ncv, max_products)
    plans = [_method_plan(name, request, timing) for name in names]
    plans.sort(key=lambda made: bool(made.obstacle))
    each = resident_bytes() + max((extra for _, extra in timing.known.values()), default=0)
    return Plan(k, operator.shape[0], tuple(plans), _choice(plans, operator, k), timing.last, workers, each)


@dataclass(frozen=True)
class _Request:
    """What is planned: the request of a solve, and what is known before it."""

    operator: Operator
    k: int
    resources: Resources
    workers: int
    known: Tensor | None
    tol: float
    block_size: int | None
    ncv: int | None
    max_products: int | None

    @property
    def predict(self) -> bool:
        """True if the operator is asked what its products need: only a bound makes that worth its tracing."""
        return self.resources.memory is not None


@dataclass(frozen=True)
class _Sizes:
    """Sizes of a method: (low, expected, high) products, those that its memory follows from, and its widest matrix."""

    products: tuple[int, int, int]
    columns: dict[str, int]
    block_size: int
    widest: int


def _sizes(name: str, request: _Request) -> _Sizes:
    """Return the sizes of a method that iterates or sketches.

    Raises:
        InvalidArgument: none that can work.
    """
    operator, k, size = request.operator, request.k, request.operator.shape[0]
    if name == "krylov":
        width = request.block_size
        if request.workers > 1 and width is None:
            width = multiple_of(default_width(k), request.workers, size)
        options = krylov_options(EigenProblem(operator, k, tol=request.tol), Krylov(request.ncv, width, request.max_products))
        columns = {"k": k, "ncv": options.ncv, "block_size": options.block_size}
        products = krylov_products(request.known, size, options, operator.dtype)
        return _Sizes(products, columns, options.block_size, options.ncv)
    outer, inner = sizes_for_pairs(name, k, size, request.max_products)
    total = inner if name != "hmt" else 2 * outer
    columns = {"k": k, "num_outer": outer, "num_inner": inner}
    return _Sizes((total, total, total), columns, request.block_size or min(WIDEST_BLOCK, size), inner)


def _method_plan(name: str, request: _Request, timing: Timing) -> MethodPlan:
    """Return the plan of one method; one that cannot be done says why."""
    operator, run = request.operator, request.resources.run
    if name == "exact":
        return _exact_plan(operator, request.k, timing, request.resources.memory, request.workers)
    try:
        sizes = _sizes(name, request)
        needs = footprint(name, operator, sizes.columns, predict=request.predict)
        fitted = fit(
            needs,
            request.resources.memory,
            block_size=request.block_size,
            default=sizes.block_size,
            stored=run is not None,
            device=operator.device,
        )
    except (OutOfBudget, InvalidArgument) as error:
        return MethodPlan(name, obstacle=str(error))
    likely = needs
    if name == "krylov":  # the basis takes no more than what is written of it
        columns = sizes.columns | {"ncv": min(sizes.columns["ncv"], sizes.products[1])}
        likely = footprint(name, operator, columns, predict=request.predict)
    stages = _stages(name, request, sizes, fitted, timing)
    few, many = sizes.products[0] / sizes.products[1], sizes.products[2] / sizes.products[1]
    expected, in_host = sum(stages.values()), operator.device.type == "cpu" or fitted.on_host
    extra = timing.at(fitted.block_size)[1]
    fewest, usual, most = (count + request.k for count in sizes.products)
    return MethodPlan(
        name,
        products=(fewest, usual, most),
        stages=stages,
        seconds=(few * expected / SPREAD, expected, many * expected * SPREAD),
        memory=_memory(operator, likely, fitted.block_size, fitted.resident and in_host, timing, extra),
        disk=needs.disk if run is not None else 0,
        block_size=fitted.block_size,
        resident=fitted.resident,
        accuracy=f"residuals to {request.tol:g}" if name == "krylov" and request.tol else ACCURACY[name],
    )


def _stages(name: str, request: _Request, sizes: _Sizes, fitted: Fit, timing: Timing) -> dict[str, float]:
    """Expected seconds by stage: products as timed, what is beside them as rehearsed, and the wire to workers."""
    k, workers, run, expected = request.k, request.workers, request.resources.run, sizes.products[1]
    solve = partial(_rehearsal, name, k, expected, fitted.block_size, ncv=sizes.columns.get("ncv"))
    stored = None if run is None or fitted.resident else nearest_folder(run.path if isinstance(run, Run) else Path(run))
    outside = rehearse(solve, request.operator, k, sizes.widest, stored=stored).at(request.operator.shape[0])
    seconds, _ = timing.at(fitted.block_size)
    residuals, _ = timing.at(min(fitted.widest, k))
    # Independent products are dealt out as whole blocks, which leaves nobody idle; those of an iteration column by column.
    whole = name not in ("krylov", "hmt") and expected >= BLOCKS_EACH * workers * fitted.block_size
    alone = expected * seconds / (workers if whole else gain(fitted.block_size, workers))
    stages = {**outside, "products": alone + k * residuals / gain(min(fitted.widest, k), workers)}
    if workers > 1:
        stages["wire"] = ((0 if whole else expected) + k) * timing.wire_seconds()
    return stages


ACCURACY = {
    "krylov": "best for its products",
    "seigh": "one round; good for the largest third",
    "hmt": "two rounds; better than one",
    "nystrom": "one round; for positive semidefinite operators",
    "singlepass": "one round",
    "exact": "exact",
}


def _memory(operator: Operator, needs: Footprint, block_size: int, resident: bool, timing: Timing, extra: int) -> int:
    """Peak resident bytes: what the process had and tracing left, and the most that a stage of the solve adds.

    ``extra`` was measured: a block, its products, and what they needed besides.
    """
    besides = max(0, extra - 2 * block_size * needs.column)
    own = replace(needs, product=0, product_fixed=besides) if extra else needs
    return max(timing.before + timing.traced, resident_bytes()) + own.memory(block_size, resident=resident)


def gain(columns: int, workers: int) -> float:
    """Return the speed-up of a block that is dealt out to workers, the wire aside: idle ones at the end count.

    >>> gain(8, 4), gain(5, 4), gain(2, 4)
    (4.0, 2.5, 2.0)
    """
    return columns / -(-columns // workers)


def _exact_plan(operator: Operator, k: int, timing: Timing, memory: int | str | None, workers: int) -> MethodPlan:
    size = operator.shape[0]
    if size > LONGEST_EXACT:
        return MethodPlan("exact", obstacle=f"needs {as_text(bytes_needed(size))} and hours: for D up to {LONGEST_EXACT:,}")
    needs = footprint("exact", operator, {"k": k})
    try:
        fit(needs, memory, block_size=None, default=1, stored=False)
    except OutOfBudget as error:
        return MethodPlan("exact", obstacle=str(error))
    seconds, extra = timing.at(min(64, size))
    trial = min(size, 600)
    matrix = torch.randn(trial, trial, dtype=torch.float64, generator=torch.Generator().manual_seed(0), device="cpu")
    torch.linalg.eigh(matrix + matrix.T)
    start = time.perf_counter()
    torch.linalg.eigh(matrix + matrix.T)
    dense = (time.perf_counter() - start) * (size / trial) ** 3
    stages = {"products": (size + k) * seconds / workers, "dense eigenproblem": dense}
    if workers > 1:
        stages["wire"] = (size + k) * timing.wire_seconds()
    expected = sum(stages.values())
    return MethodPlan(
        "exact",
        products=(size + k,) * 3,
        stages=stages,
        seconds=(expected / SPREAD, expected, expected * SPREAD),
        memory=timing.before + needs.memory(1, resident=True) + extra,
        block_size=min(64, size),
        accuracy=ACCURACY["exact"],
    )


def _rehearsal(
    name: str, k: int, products: int, block_size: int, operator: Operator, scale: float, *, ncv: int | None, **options: Any
) -> Solution:
    """The method on another operator, with k, its products and its basis divided by ``scale``."""
    few = max(1, round(k / scale))
    budget = max(few + 1, round(products / scale))
    if name == "krylov":
        width = max(1, min(block_size, operator.shape[0] // 4))
        columns = min(max(few + 2 * width, round((ncv or 0) / scale)), operator.shape[0])
        found: Solution = eigsh(
            operator, few, method="krylov", tol=0, max_products=budget, block_size=width, ncv=columns, **options
        )
        return found
    budget, width = max(budget, 2 * few), min(block_size, operator.shape[0])
    sketched: Solution = eigsh(operator, few, method=cast("MethodName", name), max_products=budget, block_size=width, **options)
    return sketched


def _is_small(operator: Operator, k: int, krylov: MethodPlan) -> bool:
    return takes_exact(operator, k) or operator.shape[0] <= 2 * krylov.products[1]


def _choice(plans: list[MethodPlan], operator: Operator, k: int) -> str:
    """Exact where ``method="auto"`` takes it or its D products are nearly the fewest; else krylov, else a sketch that fits.

    By counts, not by the seconds beside them: those vary from call to call, and a choice that varies with them is none.
    """
    possible = {made.method: made for made in plans if not made.obstacle}
    if not possible:
        return ""
    if "exact" in possible and ("krylov" not in possible or _is_small(operator, k, possible["krylov"])):
        return "exact"
    order = ("krylov", "nystrom", "seigh", "hmt", "singlepass", "exact") if operator.semidefinite else PLANNED
    return next(name for name in order if name in possible)
