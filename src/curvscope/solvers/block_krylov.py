"""Randomized block Krylov with Rayleigh-Ritz, full re-orthogonalisation and thick restart: the default eigensolver."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from curvscope.execution import long_work
from curvscope.solvers.expansion import Expansion
from curvscope.solvers.finish import Pairs, is_converged
from curvscope.solvers.krylov_basis import STIRRED, KrylovBasis, KrylovOptions
from curvscope.solvers.measure import refuse_asymmetry
from curvscope.solvers.meter import Meter
from curvscope.solvers.width import expected_products
from curvscope.tall import multiply

GROWTH_BETWEEN_CHECKS = (0.02, 0.1)
"""Share of the products so far after which to look again: at least the first, and the second times the share of pairs that have
not converged: they converge one after the other, at no less than a product each."""
CONFIRMING_STEPS = 4
LOOKED_AT = 100
"""Columns up to which Q* A Q is held against its transpose: an operator that is not symmetric shows it in the first ones."""


def block_krylov(meter: Meter, options: KrylovOptions, expansion: Expansion, loop: Loop | None = None) -> Pairs:
    r"""The k wanted Ritz pairs of A from the block Krylov space that ``expansion`` begins or has reached.

    Each step multiplies the newest block, orthogonalises the products against the whole basis and appends what is new. The
    Rayleigh-Ritz pairs are those of Q* A Q as computed. A basis of more than ncv columns is restarted thickly: the wanted Ritz
    vectors and some more are kept, with both ends of the spectrum for LM and BE. When all k residuals are small, two
    fresh random directions are added, and the solve ends if after four more steps they still are: a pair
    that the start block missed, such as another copy of a multiple eigenvalue, shows up in between. Otherwise it ends with
    the budget.

    Cost: ``meter.products``; D (m + b) numbers for the basis of m <= ncv columns; 4 D m b operations a step.

    Raises:
        NotHermitian: Q* A Q of the first columns is not symmetric, beyond rounding.
    Limits: a block of width b sees at most b copies of a multiple eigenvalue from one start, and two more from the random
        directions at the end; only :func:`curvscope.certify` proves that none is missing.
    Source: Musco and Musco (2015); Wu and Simon (2000) for the restart; Tropp and Webber (2023) for a survey.
    """
    iterate(meter, options, expansion, stage="block Krylov", loop=loop)
    with meter.stage("Ritz vectors", 0):
        values, rotation, _ = expansion.ritz()
        vectors = multiply(expansion.basis.leading(expansion.multiplied), rotation)
    return Pairs(
        values,
        vectors,
        tol=options.tol,
        advice=krylov_advice(options),
        diagnostics={"asymmetry": expansion.asymmetry, "restarts": float(expansion.restarts)},
        norm=expansion.norm,
    )


@dataclass
class Loop:
    """Where the iteration stands.

    Attributes:
        agreed: whether the last look found all residuals small.
        next_check: number of products before which not to look.
        note: what the last look found, in words.
        finished: whether all pairs have converged, confirmed from elsewhere.
    """

    agreed: bool = False
    next_check: int = 0
    note: str = ""
    finished: bool = False


def iterate(meter: Meter, options: KrylovOptions, expansion: KrylovBasis, *, stage: str, loop: Loop | None = None) -> None:
    """Let a basis grow until its wanted Ritz pairs have converged twice, or the budget or the space is at its end."""
    loop = loop or Loop(agreed=expansion.confirmed[0] == options.which and expansion.confirmed[1] >= options.k)
    with meter.stage(stage, options.max_products), long_work(_likely(meter, options, expansion.PRICE)):
        while not loop.finished and expansion.affordable(meter) and not expansion.exhausted:
            if expansion.crowded:
                expansion.restart()
            expansion.step(meter, loop.note)
            if isinstance(expansion, Expansion) and expansion.multiplied <= LOOKED_AT:
                refuse_asymmetry(expansion.asymmetry, meter.operator, "Q'AQ on the Krylov basis differs from its transpose")
            if options.tol and meter.products >= loop.next_check and expansion.multiplied >= options.k:
                _look(meter, options, expansion, loop)
            if isinstance(expansion, Expansion):
                expansion.save(loop=asdict(loop), spent=meter.spent(), scope=meter.workspace.scope)


def _likely(meter: Meter, options: KrylovOptions, price: int) -> int:
    """Products that are likely to come, for those who prepare for them: all that are left, or what a tolerance needs."""
    left = max(0, options.max_products - meter.products)
    return min(left, round(price * expected_products(options.k, options.block_size))) if options.tol else left


def _look(meter: Meter, options: KrylovOptions, expansion: KrylovBasis, loop: Loop) -> None:
    """See whether all pairs have converged; if so for the first time, add random directions and look again later."""
    good, loop.note = _progress(expansion, options)
    if good == options.k and loop.agreed:
        expansion.confirmed, loop.finished = (options.which, options.k), True
        return
    least, each = GROWTH_BETWEEN_CHECKS
    loop.next_check = int(meter.products * (1 + max(least, each * (1 - good / options.k))))
    if good == options.k:  # look once more, from elsewhere
        expansion.stir()
        steps = CONFIRMING_STEPS * (options.block_size + STIRRED) * expansion.PRICE
        loop.next_check = max(loop.next_check, meter.products + steps)
    loop.agreed = good == options.k


def krylov_advice(options: KrylovOptions) -> str:
    """What to do about pairs that did not converge."""
    return f"raise max_products (now {options.max_products}), ncv (now {options.ncv}) or tol"


def _progress(expansion: KrylovBasis, options: KrylovOptions) -> tuple[int, str]:
    """How many pairs have converged by their estimates, and that in words."""
    values, _, residuals = expansion.ritz()
    good = int(is_converged(values, residuals, options.tol, scale=expansion.norm, unit=expansion.unit).sum())
    relative = (residuals / values.abs().clamp(min=expansion.unit * expansion.norm)).sort().values
    return good, (
        f"{good} of {options.k} converged; relative residuals: median {float(relative[len(relative) // 2]):.0e}, "
        f"90% below {float(relative[int(0.9 * (len(relative) - 1))]):.0e}, worst {float(relative[-1]):.0e}"
    )
