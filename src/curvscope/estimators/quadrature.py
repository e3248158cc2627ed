"""From an operator to its spectral density."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psutil
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, OutOfBudget
from curvscope.estimators.deflation import Deflation
from curvscope.estimators.density import Density
from curvscope.estimators.lanczos import Quadrature, lanczos
from curvscope.estimators.resolved import take_out
from curvscope.execution import Progress
from curvscope.execution.resources import SAFE_SHARE, as_bytes, as_text
from curvscope.operators import Operator, as_operator
from curvscope.sketches import TestMatrix
from curvscope.solvers import Solution
from curvscope.solvers.checks import check_operator
from curvscope.solvers.exact import bytes_needed, dense_matrix
from curvscope.solvers.measure import blocks
from curvscope.solvers.meter import Meter
from curvscope.solvers.solve import metered

METHODS = ("auto", "lanczos", "exact")
ROLE = "density"
PARTS = ("nodes", "weights", "radii")
NOTHING = torch.zeros(0, 0, dtype=torch.float64)


def density(
    operator: Any,
    *,
    num_probes: int = 8,
    num_steps: int = 100,
    deflate: Solution | None = None,
    method: str = "auto",
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
    back exactly; so are the eigenvalues at the ends that all recurrences have found (:func:`.resolved.take_out`).

    Args:
        operator: D x D; anything that :func:`curvscope.as_operator` takes.
        num_probes: q; the error of a share p falls as sqrt(2 p (1 - p) / (D q)).
        num_steps: m; the resolution inside the bulk is about its width over m, at its edges finer.
        deflate: a solution of this operator; its pairs are taken for exact.
        method: "lanczos"; "exact": all D eigenvalues from the dense matrix; "auto": exact where that takes no more products
            and fits into memory.
        reorthogonalize: False: three vectors a probe instead of num_steps; see :func:`.lanczos.lanczos`.
        seed: of the probes.
        memory: bytes (or "8GiB") for the bases; default 0.8 of what is free. Probes that do not fit run after one another.
        executor: who computes the products, a probe's to one of them in each step; see :func:`curvscope.eigsh`. None: this
            process.
        progress: see :data:`.progress.Progress`.

    Returns:
        A :class:`Density`: masses and counts with standard errors, outliers, edges, trace, curves, ``plot``.

    Cost: num_probes x num_steps products in num_steps blocks (exact: D); 4 D q m^2 operations; memory: q (m + 2) vectors in
        float64, fewer probes at a time where they do not fit.

    Raises:
        InvalidArgument: an operator that is not square, symmetric and real, a solution of another one, no probes or steps.
        NotFinite: a product has NaN in it. OutOfBudget: one probe (or the dense matrix) does not fit.
    Limits: found eigenvalues are told apart up to a multiplicity of num_probes; pairs in ``deflate`` count as exact, so their
        residuals add to the error. Probes that run after one another, or without re-orthogonalisation, take nothing out.
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
    fits = bytes_needed(size) <= 2 * free  # the eigenvalues alone take half
    if deflation.size and (method == "exact" or (method == "auto" and size <= num_probes * num_steps and fits)):
        if not fits:
            raise OutOfBudget(f"the dense matrix of D = {size} does not fit {as_text(free)}: use method='lanczos'")
        known = _all_eigenvalues(meter)
    unknown = size - len(known)
    steps, at_once = min(num_steps, max(unknown, 1)), num_probes if unknown else 0
    if unknown:
        at_once = _probes_at_once(size, steps, num_probes, free, reorthogonalize)
    parts: list[Quadrature] = []
    unit = torch.finfo(operator.dtype).eps
    with meter.stage("Lanczos quadrature", num_probes * steps if unknown else 0):
        for start, stop in blocks(num_probes if unknown else 0, at_once or 1):
            starts = _starts(operator, deflation, seed, start, stop)
            parts.append(lanczos(deflation.multiply, starts, steps, unit=unit, reorthogonalize=reorthogonalize))
    if len(parts) == 1 and reorthogonalize and not _whole(parts[0], unknown):
        resolved, weights = take_out(parts[0], unit)
        known, parts = torch.cat([known, resolved]).sort().values, [replace(parts[0], weights=weights)]
    found = [torch.cat([getattr(part, name) for part in parts]) if parts else NOTHING for name in PARTS]
    seconds = sum(spent for name, spent in meter.seconds.items() if name != "products")
    made = {"fingerprint": operator.fingerprint, "num_probes": num_probes, "num_steps": steps, "seed": seed}
    return Density(size, known, *found, meter.products, seconds, made)


def _starts(operator: Operator, deflation: Deflation, seed: int, start: int, stop: int) -> Tensor:
    """Uniformly random unit vectors in the complement of the known eigenvectors."""
    random = TestMatrix("gaussian", operator.shape[0], seed=seed, role=ROLE, dtype=torch.float64, device=operator.device)
    block = deflation.project(random.columns(start, stop))
    return block / block.norm(dim=0)


def _probes_at_once(size: int, steps: int, probes: int, free: int, reorthogonalize: bool) -> int:
    each = 8 * size * ((steps if reorthogonalize else 1) + 8)
    if each > free:
        raise OutOfBudget(
            f"one probe of {steps} steps needs {as_text(each)}, {as_text(free)} may be used: lower num_steps, or pass "
            f"reorthogonalize=False ({as_text(8 * size * 9)})"
        )
    return min(probes, free // each)


def _all_eigenvalues(meter: Meter) -> Tensor:
    matrix, _ = dense_matrix(meter)
    with meter.stage("dense eigenvalues", 0):
        return torch.linalg.eigvalsh(matrix)


def _whole(found: Quadrature, unknown: int) -> bool:
    """Whether a recurrence has come to the end of its space: then it knows all that it can, and nothing would be left."""
    return int(found.made.min()) < found.nodes.shape[1] or found.nodes.shape[1] == unknown
