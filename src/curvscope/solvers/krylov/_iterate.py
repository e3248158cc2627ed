"""Randomized block Krylov with Rayleigh-Ritz, full re-orthogonalisation and thick restart: the default eigensolver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import hypot, log10
from typing import Any

import torch
from torch import Tensor

from curvscope.measurement import Meter, refuse_asymmetry, remembered
from curvscope.sketches import TestMatrix
from curvscope.solvers.driver import End, Evidence, Pairs, Search, ends
from curvscope.solvers.krylov._basis import KrylovBasis, KrylovOptions
from curvscope.solvers.krylov._eigen_basis import Expansion
from curvscope.solvers.sizing import expected_products
from curvscope.system import long_work
from curvscope.tall import TallMatrix, multiply

TOWARDS_NEXT_LOOK = 0.4
"""Share of the products that are expected to be missing after which to look again: the rate of convergence varies."""
MOST_GROWTH = 0.1
"""Share of the products so far after which to look again at the latest."""
LEAST_WAIT = 2
"""Products between two looks at least: a look at a small basis takes as long as two products of a sparse matrix of a few
thousand rows. On 18 of the known matrices this saves a third of the looks for k = 1 and costs 2 % more products."""
ROUNDINGS = 5
"""Rounding units of ||A|| that estimated residuals may have: half of what measured ones may, whose products are rounded too."""
SPREAD, DENSE_SHARE = 0.9, 0.3
"""Spread over tol of values less than tol apart, beyond which some may be missing among them; share of tol for these.

Residuals of tol leave room for further eigenvalues between such values, and the last one may be off by as much as they spread:
at dense edges (paths, ladders, wheels, rings of cliques) by up to 1.13 tol for k = 5, and 1.29 tol for k = 20.
"""
SYMMETRY_COLUMNS, SYMMETRY_EVERY = 100, 8
"""Columns up to which Q* A Q is held against its transpose: an operator that is not symmetric shows it in the first ones."""


def block_krylov(meter: Meter, options: KrylovOptions, expansion: Expansion, loop: Loop | None = None) -> Pairs:
    r"""The k wanted Ritz pairs of A from the block Krylov space that ``expansion`` begins or has reached.

    Each step multiplies the newest block, orthogonalises the products against the whole basis and appends what is new. The
    Rayleigh-Ritz pairs are those of Q* A Q as computed. A basis of more than ncv columns is restarted thickly: the wanted Ritz
    vectors and some more are kept, with both ends of the spectrum for LM and BE. When all k residuals are small, a random
    direction outside their vectors is followed (:class:`.completeness.Search`) until it shows a wanted eigenvalue that was
    missed, such as another copy of a multiple one, or until its coefficients exclude that there is one. What it shows widens
    the block, and the iteration continues.

    Cost: ``meter.products``; D (m + b) numbers for the basis of m <= ncv columns; 4 D m b operations a step. A search needs one
        product a step and three vectors beside the k found.

    Raises:
        NotHermitian: Q* A Q of the first columns is not symmetric, beyond rounding.
    Limits: what the search excludes, it excludes except with a probability of 1e-3; the status says so.
    Source: Musco and Musco (2015); Wu and Simon (2000) for the restart; Tropp and Webber (2023) for a survey.
    """
    while True:
        loop = iterate(meter, options, expansion, stage="block Krylov", loop=loop)
        with meter.stage("Ritz vectors", 0):
            values, rotation, residuals = expansion.ritz()
            vectors = multiply(expansion.basis.leading(expansion.multiplied), rotation)
        sought = ends(values, options.which, options.tol, expansion.norm, expansion.unit)
        evidence = Evidence() if expansion.exhausted else Evidence.none(sought)
        if expansion.exhausted or not loop.finished:
            break
        known = _shown_before(expansion, options, values)
        # Small residuals show that these are eigenpairs, not that they are the wanted ones: a Krylov space has one direction a
        # start column in each eigenspace, so further copies of a multiple eigenvalue, and vectors that the start happened to be
        # orthogonal to, never show in them. Only a random direction outside of the pairs found can tell.
        found = known or search_for_missed(meter, options, expansion, vectors, sought, meter.multiply)
        if isinstance(found, Evidence):
            # For magnitudes the bound is the norm of A on the complement, of which R is a part.
            coupling = float(residuals.norm()) if options.which == "LM" and known is None else 0.0
            bounds = tuple(
                (side, edge, side * hypot(bound, coupling)) if coupling else (side, edge, bound)
                for side, edge, bound in found.bounds
            )
            evidence = replace(found, bounds=bounds, products=expansion.searched)
            expansion.shown = (options.which, values.clone(), evidence)
            break
        del vectors
        expansion.widen(found)
        loop = Loop()
        expansion.save(loop=asdict(loop), spent=meter.spent(), scope=meter.workspace.scope)
    return Pairs(
        values,
        vectors,
        tol=options.tol,
        advice=krylov_advice(options),
        diagnostics={"asymmetry": expansion.asymmetry, "restarts": float(expansion.restarts)},
        norm=expansion.norm,
        evidence=evidence,
    )


def search_for_missed(
    meter: Meter,
    options: KrylovOptions,
    expansion: KrylovBasis,
    vectors: TallMatrix,
    sought: list[End],
    apply: Callable[[Tensor], Tensor],
) -> Evidence | Tensor:
    """Search outside the found vectors, in what is left of the budget; see :class:`.completeness.Search`."""
    start = TestMatrix(
        "gaussian",
        vectors.shape[0],
        seed=options.seed,
        role="completeness",
        dtype=vectors.dtype,
        device=vectors.device,
    ).columns(expansion.searches, expansion.searches + 1)
    name, price = f"search/{expansion.searches:03d}", expansion.PRICE

    def product(block: Tensor, step: int) -> Tensor:
        """One product; a run keeps it."""
        compute = partial(apply, block)
        return remembered(meter, f"{name}/{step:05d}", price, compute)

    before = meter.products
    with meter.stage("completeness", options.max_products - meter.products):
        search = Search(product, vectors, start, sought, options.which, options.tol)
        found = search.run(max(0, options.max_products - meter.products) // price)
    expansion.searches += 1
    expansion.searched += meter.products - before
    meter.searched = expansion.searched
    if isinstance(found, Evidence):
        return replace(found, failure=min(1.0, found.failure * expansion.searches))
    return found


def _shown_before(expansion: KrylovBasis, options: KrylovOptions, values: Tensor) -> Evidence | None:
    """The evidence of an earlier solve with this basis, if it is about these very pairs."""
    if expansion.shown is None:
        return None
    which, earlier, evidence = expansion.shown
    same = which == options.which and torch.equal(earlier, values)
    return evidence if same and evidence.sufficient else None


@dataclass
class Loop:
    """State of the iteration.

    Attributes:
        next_check: number of products before which not to look.
        note: what the last look found, in words.
        finished: whether all pairs have converged.
        last: products at the last look.
        excess: decimal digits by which the worst residual was too large then.
    """

    next_check: int = 0
    note: str = ""
    finished: bool = False
    last: int = 0
    excess: float = 0.0

    @classmethod
    def restored(cls, facts: dict[str, Any]) -> Loop:
        """From what a run kept; one of an earlier version looks again at once."""
        return cls(**facts) if facts.keys() == asdict(cls()).keys() else cls()


def iterate(meter: Meter, options: KrylovOptions, expansion: KrylovBasis, *, stage: str, loop: Loop | None = None) -> Loop:
    """Let a basis grow until its wanted Ritz pairs have converged, or the budget or the space is at its end."""
    loop = loop or Loop()

    def finished() -> bool:
        """Look whether it is time to, and keep the state in a run."""
        if options.tol and meter.products >= loop.next_check and expansion.multiplied >= options.k:
            _look(meter, options, expansion, loop)
        if isinstance(expansion, Expansion) and meter.workspace.run is not None:
            expansion.save(loop=asdict(loop), spent=meter.spent(), scope=meter.workspace.scope)
        return loop.finished

    if not loop.finished:
        grow(meter, expansion, stage=stage, finished=finished, note=lambda: loop.note)
    return loop


def grow(
    meter: Meter,
    expansion: KrylovBasis,
    *,
    stage: str,
    finished: Callable[[], bool],
    note: Callable[[], str] = lambda: "",
) -> None:
    """Multiply and restart, block by block, until ``finished()`` or the budget or the space is at its end.

    Args:
        meter: counts the products.
        expansion: grows by them; its options hold the budget.
        stage: name of this work where progress is shown.
        finished: asked after each block.
        note: gives what is shown beside the next block.

    Raises:
        NotHermitian: the small matrix of the first columns is not symmetric, beyond rounding.
    """
    options = expansion.options
    with meter.stage(stage, options.max_products), long_work(_likely(meter, options, expansion.PRICE)):
        while expansion.affordable(meter) and not expansion.exhausted:
            if expansion.needs_restart:
                expansion.restart()
            before = expansion.multiplied
            expansion.step(meter, note())
            often = before < SYMMETRY_EVERY or before // SYMMETRY_EVERY != expansion.multiplied // SYMMETRY_EVERY
            if expansion.multiplied <= SYMMETRY_COLUMNS and often:
                refuse_asymmetry(expansion.asymmetry, meter.operator, expansion.ASYMMETRY)
            if finished():
                return


def _likely(meter: Meter, options: KrylovOptions, price: int) -> int:
    """Products that are likely to come, for those who prepare for them: all that are left, or what a tolerance needs."""
    left = max(0, options.max_products - meter.products)
    return min(left, round(price * expected_products(options.k, options.block_size))) if options.tol else left


def _look(meter: Meter, options: KrylovOptions, expansion: KrylovBasis, loop: Loop) -> None:
    """See whether all pairs have converged, and say when to look again."""
    good, excess, loop.note = _progress(expansion, options)
    loop.finished = good == options.k
    if loop.finished:
        return
    made = meter.products - loop.last
    rate = (loop.excess - excess) / made if loop.last and made else 0.0
    expected = excess / rate if rate > 0 else MOST_GROWTH * meter.products
    wait = max(min(TOWARDS_NEXT_LOOK * expected, MOST_GROWTH * meter.products), LEAST_WAIT)
    # Pairs converge one after the other, at no less than half a product each.
    loop.next_check = meter.products + int(max(wait, 0.5 * (options.k - good) - 1, 0.0))
    loop.last, loop.excess = meter.products, excess


def krylov_advice(options: KrylovOptions) -> str:
    """Return what to do about pairs that did not converge."""
    return f"raise max_products (now {options.max_products}), ncv (now {options.ncv}) or tol"


def _dense(values: list[float], tol: float) -> list[bool]:
    """Return for each value whether it is one of several less than tol apart that together spread over about tol or more.

    >>> _dense([3.0, 1.0, 0.9995, 0.999, 0.5], 1e-3), _dense([1.0, 0.9995], 1e-3)
    ([False, True, True, True, False], [False, False])
    """
    dense, order = [False] * len(values), sorted(range(len(values)), key=values.__getitem__)
    chain: list[int] = []
    for place, following in zip(order, [*order[1:], None], strict=True):
        chain.append(place)
        if following is None or values[following] - values[place] >= tol * max(abs(values[place]), abs(values[following])):
            if values[place] - values[chain[0]] > SPREAD * tol * max(abs(values[place]), abs(values[chain[0]])):
                for member in chain:
                    dense[member] = True
            chain = []
    return dense


def _progress(expansion: KrylovBasis, options: KrylovOptions) -> tuple[int, float, str]:
    """Return how many pairs have converged by their estimates, by how many digits the worst has not, and that in words."""
    values, _, residuals = expansion.ritz()
    floor = expansion.unit * expansion.norm
    magnitudes, sizes = values.abs().tolist(), residuals.tolist()  # plain numbers: k is small, and each call of PyTorch counts
    tols = [options.tol * (DENSE_SHARE if dense else 1.0) for dense in _dense(values.tolist(), options.tol)]
    allowed = [max(tol * size, ROUNDINGS * floor, 1e-300) for tol, size in zip(tols, magnitudes, strict=True)]
    late = [size > most for size, most in zip(sizes, allowed, strict=True)]
    good = len(late) - sum(late)
    if good < options.k:
        expansion.focus(late, allowed)
    excess = max(0.0, log10(max(1.0, *(size / most for size, most in zip(sizes, allowed, strict=True)))))
    relative = sorted(size / max(magnitude, floor, 1e-300) for size, magnitude in zip(sizes, magnitudes, strict=True))
    return (
        good,
        excess,
        (
            f"{good} of {options.k} converged; relative residuals: median {relative[len(relative) // 2]:.0e}, "
            f"90% below {relative[int(0.9 * (len(relative) - 1))]:.0e}, worst {relative[-1]:.0e}"
        ),
    )
