"""From an operator to its spectral density."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any, Literal

import psutil
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, OutOfBudget
from curvscope.estimators._deflation import Deflation
from curvscope.estimators._density import Density
from curvscope.estimators._gauss import Quadrature, quadrature
from curvscope.estimators._low_rank import eigenvalues_by_range, products_needed, vectors_needed
from curvscope.estimators._resolved import take_out
from curvscope.measurement import Meter, blocks, lanczos
from curvscope.operators import RankBound, as_operator
from curvscope.operators.base import Operator
from curvscope.sketches import TestMatrix
from curvscope.solvers import Solution, bytes_needed, dense_matrix
from curvscope.solvers.driver import check_operator, metered
from curvscope.system import SAFE_SHARE, Progress, as_bytes, as_text, checked, same_choice

METHODS = ("auto", "lanczos", "exact")
ROLE = "density"
PARTS = ("nodes", "weights", "radii")
NOTHING = torch.zeros(0, 0, dtype=torch.float64, device="cpu")
MOST_APART = 6
"""Standard errors up to which sums with and without the counted eigenvalues agree: those of few probes scatter."""


@checked
def density(  # noqa: PLR0913 -- a public function: request and resources, by keyword
    operator: Any,
    *,
    num_probes: int = 8,
    num_steps: int = 100,
    deflate: Solution | None = None,
    method: Literal["auto", "lanczos", "exact"] = "auto",
    reorthogonalize: bool = True,
    seed: int = 0,
    memory: int | str | None = None,
    executor: Any = None,
    progress: Progress = None,
) -> Density:
    r"""The spectral density of a Hermitian operator.

    Stochastic Lanczos quadrature: for uniformly random unit vectors v in the complement of the known eigenvectors, m Lanczos
    steps give the m-point Gauss quadrature of v* f(A) v, whose mean is tr f / n. All probes take their steps together, one
    block of products a step; recurrences are in float64 with full re-orthogonalisation. Known pairs are taken out and added
    back exactly; so are the eigenvalues at the ends that all recurrences have found, as far as the number of their copies is
    known (:func:`.resolved.take_out`). An eigenvalue of more copies than can be counted, such as the zeros of a matrix with
    fewer samples than parameters, stays in the distribution with its weight.

    Gauss-Newton and Fisher matrices have a known highest rank, such as N (C - 1) for N samples and C classes
    (``operator.rank_bound()``). Where their range takes no more products than the quadrature, "auto" gives all D eigenvalues.

    Args:
        operator: D x D; anything that :func:`curvscope.as_operator` takes.
        num_probes: q; the error of a share p falls as sqrt(2 p (1 - p) / (D q)).
        num_steps: m; the resolution inside the bulk is about its width over m, at its edges finer.
        deflate: a solution of this operator; its pairs are taken for exact.
        method: "lanczos"; "exact": all D eigenvalues from the dense matrix, or from the range of a matrix whose rank is known
            to be small; "auto": exact where that takes no more products and fits into memory.
        reorthogonalize: False: three vectors a probe instead of num_steps; see :func:`.measurement.lanczos`.
        seed: of the probes.
        memory: bytes (or "8GiB") for the bases; default 0.8 of what is free. Probes that do not fit run after one another.
        executor: who computes the products, a probe's to one of them in each step; see :func:`curvscope.eigsh`. None: this
            process.
        progress: see :data:`.progress.Progress`.

    Returns:
        A :class:`Density`: masses and counts with standard errors, outliers, edges, trace, curves, ``plot``.

    Cost: num_probes x num_steps products in num_steps blocks (exact: D, or twice the highest rank); 4 D q m^2 operations;
        memory: q (m + 2) vectors in float64, fewer probes at a time where they do not fit.

    Raises:
        InvalidArgument: an operator that is not square, symmetric and real, a solution of another one, no probes or steps.
        NotFinite: a product has NaN in it. OutOfBudget: one probe (or the dense matrix) does not fit.
    Warns: (RuntimeWarning) where the eigenvalues that were counted contradict the plain quadrature, which then is used.
    Limits: at most num_probes - 2 copies of an eigenvalue are counted (num_probes - 3 or fewer from 20 probes on): 6 with 8
        probes, 1 with 3. With one or two probes no eigenvalue is counted apart. Fewer copies are counted where the
        eigenvalue has not converged far.
        Pairs in ``deflate`` count as exact, so their residuals add to the error. Probes that run after one another, or
        without re-orthogonalisation, take nothing out.
    Source: Golub and Meurant (2010), chapter 7; Ubaru, Chen and Saad (SIMAX 2017); Ghorbani, Krishnan and Xiao (2019).

    >>> from curvscope.problems import spectrum
    >>> A = spectrum("plus_minus", 3000, rank=6, noise=0.01)
    >>> found = density(A, num_probes=4, num_steps=40)
    >>> found.outliers("ratio"), found.products
    (3, 160)
    >>> [round(value, 6) for value in found.extremes(largest=False).tolist()[:3]]
    [-1.0, -0.833333, -0.666667]
    """
    operator = as_operator(operator)
    check_operator(operator)
    if num_probes < 1 or num_steps < 2:
        raise InvalidArgument(f"num_probes={num_probes}, num_steps={num_steps}: choose at least 1 probe, of 2 steps or more")
    method = same_choice(
        method, {**dict.fromkeys(("slq", "stochasticlanczos"), "lanczos"), **dict.fromkeys(("dense", "full"), "exact")}
    )
    if method not in METHODS:
        raise InvalidArgument(f"method={method!r}: choose one of {', '.join(METHODS)}")
    free = as_bytes(memory) if memory is not None else int(SAFE_SHARE * psutil.virtual_memory().available)
    with metered(operator, executor, progress) as meter:
        return _density(meter, num_probes, num_steps, deflate, method, reorthogonalize, seed, free)


def _density(
    meter: Meter,
    num_probes: int,
    num_steps: int,
    deflate: Solution | None,
    method: str,
    reorthogonalize: bool,
    seed: int,
    free: int,
) -> Density:
    """The density from products of the meter's operator, with so many bytes for the bases."""
    operator, size = meter.operator, meter.operator.shape[0]
    deflation = Deflation(operator, meter.multiply, deflate)
    known = deflation.values.sort().values
    made = {"fingerprint": operator.fingerprint, "num_probes": num_probes, "num_steps": num_steps, "seed": seed}
    bound = operator.rank_bound() if deflation.size else None
    if bound is not None and bound.rank < size:
        made |= {"rank_bound": bound.rank, "rank_reason": bound.reason}
    if deflation.size and method in ("auto", "exact"):
        found = _exact(meter, bound, num_probes * num_steps if method == "auto" else None, seed, free)
        known = known if found is None else found
    unknown = size - len(known)
    if not unknown:
        return Density(size, known, NOTHING, NOTHING, NOTHING, meter.products, _seconds(meter), made)
    steps = min(num_steps, unknown)
    at_once = _probes_at_once(size, steps, num_probes, free, reorthogonalize)
    parts: list[Quadrature] = []
    unit = torch.finfo(operator.dtype).eps
    with meter.stage("Lanczos quadrature", num_probes * steps):
        for start, stop in blocks(num_probes, at_once):
            starts = _starts(operator, deflation, seed, start, stop)
            made_here = lanczos(deflation.multiply, starts, steps, unit=unit, reorthogonalize=reorthogonalize)
            parts.append(quadrature(made_here, steps, unit))
    nodes, weights, radii = (torch.cat([getattr(part, name) for part in parts]) for name in PARTS)
    made["num_steps"] = steps
    plain = Density(size, known, nodes, weights, radii, meter.products, _seconds(meter), made)
    if len(parts) > 1 or not reorthogonalize:
        return plain
    resolved, weights = take_out(parts[0], unit, unknown)
    known = torch.cat([known, resolved]).sort().values
    if len(known) == size:
        nodes = weights = radii = NOTHING
    return _checked(replace(plain, exact=known, nodes=nodes, weights=weights, radii=radii), plain)


def _exact(meter: Meter, bound: RankBound | None, budget: int | None, seed: int, free: int) -> Tensor | None:
    """All D eigenvalues, from the range or the dense matrix; None where that takes more products than the budget.

    Raises:
        OutOfBudget: there is no budget of products, and the matrix does not fit.
    """
    size = meter.operator.shape[0]
    if bound is not None and _pays(bound, size, budget) and 8 * size * vectors_needed(bound) <= free:
        found = eigenvalues_by_range(meter, bound, seed=seed)
        if found is not None:
            return found
        warnings.warn(
            f"the rank is larger than the bound {bound.rank} ({bound.reason}): not used", RuntimeWarning, stacklevel=4
        )
    fits = bytes_needed(size) <= 2 * free  # the eigenvalues alone take half
    if budget is not None and not (size <= budget and fits):
        return None
    if not fits:
        raise OutOfBudget(f"the dense matrix of D = {size} does not fit {as_text(free)}: use method='lanczos'")
    matrix, _ = dense_matrix(meter)
    with meter.stage("dense eigenvalues", 0):
        values: Tensor = torch.linalg.eigvalsh(matrix)
    return values


def _pays(bound: RankBound, size: int, budget: int | None) -> bool:
    """Return whether the range takes fewer products than the dense matrix, and no more than the budget."""
    return products_needed(bound) < size and (budget is None or products_needed(bound) <= budget)


def _checked(counted: Density, plain: Density) -> Density:
    """The density with eigenvalues counted apart, if its sums agree with those of the plain quadratures; else the plain one."""
    pairs = ((counted.trace, plain.trace), (counted.sum(torch.square), plain.sum(torch.square)))
    names = ("trace", "sum of squares")
    scale = max(abs(end) for end in plain.range)
    wrong = [
        f"{name} {one.value:.6g}, plain {other.value:.6g} +- {other.stderr:.2g}"
        for name, (one, other), power in zip(names, pairs, (1, 2), strict=True)
        if not abs(one.value - other.value)
        <= MOST_APART * math.hypot(one.stderr, other.stderr) + plain.size * scale**power * 1e-9
    ]
    if not wrong:
        return counted
    warnings.warn(
        f"{len(counted.exact) - len(plain.exact)} eigenvalues were found and counted, but contradict the plain quadrature "
        f"({'; '.join(wrong)}): they stay in the distribution. More probes count copies better",
        RuntimeWarning,
        stacklevel=4,
    )
    return plain


def _seconds(meter: Meter) -> float:
    return sum(spent for name, spent in meter.seconds.items() if name != "products")


def _starts(operator: Operator, deflation: Deflation, seed: int, start: int, stop: int) -> Tensor:
    """Uniformly random unit vectors in the complement of the known eigenvectors."""
    random = TestMatrix("gaussian", operator.shape[0], seed=seed, role=ROLE, dtype=torch.float64, device=operator.device)
    block = deflation.project(random.columns(start, stop))
    scaled: Tensor = block / block.norm(dim=0)
    return scaled


def _probes_at_once(size: int, steps: int, probes: int, free: int, reorthogonalize: bool) -> int:
    each = 8 * size * ((steps if reorthogonalize else 1) + 8)
    if each > free:
        raise OutOfBudget(
            f"one probe of {steps} steps needs {as_text(each)}, {as_text(free)} may be used: lower num_steps, or pass "
            f"reorthogonalize=False ({as_text(8 * size * 9)})"
        )
    return min(probes, free // each)
