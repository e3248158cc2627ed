"""Traces of functions of a matrix, such as its log-determinant, with errors of the probes and of the quadrature."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.estimators import Density, Estimate, density
from curvscope.operators import as_operator
from curvscope.solvers import Solution
from curvscope.system import Progress, checked
from curvscope.systems._eigenvalue_functions import Function, divided, function_of, points_between, values_at
from curvscope.systems._function import known_interval

NOISE = 100
"""Units of rounding, relative to the largest eigenvalue, up to which an eigenvalue counts as zero where f needs it."""


@checked
def function_trace(  # noqa: PLR0913 -- a public function: request and resources, by keyword
    operator: Any,
    f: Any,
    *,
    damping: float = 0.0,
    num_probes: int = 8,
    num_steps: int = 100,
    deflate: Solution | None = None,
    spectrum: Any = None,
    method: Literal["auto", "lanczos", "exact"] = "auto",
    seed: int = 0,
    memory: int | str | None = None,
    executor: Any = None,
    progress: Progress = None,
) -> Estimate:
    r"""Estimate tr f(A + damping I), the sum of f over all eigenvalues, with errors of the probes and of the quadrature.

    .. math:: v^* f(A) v - \sum_i w_i f(\theta_i) = v_+^* h(A)\, v_+, \qquad
        h(x) = \sum_{i, j} c_i c_j\, f[\theta_i, \theta_j, x]

    Stochastic Lanczos quadrature by :func:`curvscope.density`, whose scatter is the error of the probes. What each quadrature
    leaves out lies between the least and the largest h on the interval of the spectrum: their middle is added, half of their
    distance is part of the standard error.

    Args:
        operator: A, D x D; anything that :func:`curvscope.as_operator` takes.
        f: "exp", "log", "sqrt", "inverse_sqrt", "inverse", or a function of a float64 tensor of eigenvalues.
        damping: mu, added to the diagonal.
        num_probes: of the density; its error falls with their root.
        num_steps: of each quadrature; small damping needs more.
        deflate: a solution of this operator, whose part of the trace is known.
        spectrum: what is known of A's spectrum, see :func:`curvscope.function`; None: what is known by structure, and what the
            quadratures have seen.
        method: see :func:`curvscope.density`, also for ``seed``, ``memory``, ``executor`` and ``progress``.
        seed: of the probes.
        memory: for the bases.
        executor: who computes the products.
        progress: see :data:`.progress.Progress`.

    Returns:
        ``.value, .stderr, .interval, .products``.

    Cost: of :func:`curvscope.density`.

    Raises:
        InvalidArgument: f is not finite at an eigenvalue, such as log of a negative one, or an eigenvalue is outside of
            ``spectrum``.
    Limits: the middle of h is its middle on the interval, not weighted by the density: with few steps and small damping the
        error of the quadrature may exceed that of the probes, and more steps help, more probes do not.
    Source: Golub and Meurant (2010), chapters 6 and 7; Ubaru, Chen and Saad (SIMAX 2017).

    >>> import curvscope as cs
    >>> A = torch.diag(torch.arange(1.0, 41.0, dtype=torch.float64))
    >>> round(cs.function_trace(A, "log").value, 4)  # ln 40!
    110.3206
    """
    operator = as_operator(operator)
    evaluated_by = function_of(f)
    known, _ = known_interval(operator, damping, spectrum)
    found = density(
        operator,
        num_probes=num_probes,
        num_steps=num_steps,
        deflate=deflate,
        method=method,
        seed=seed,
        memory=memory,
        executor=executor,
        progress=progress,
    )
    scale = max(abs(end) for end in found.range)
    noise = NOISE * operator.rounding * scale
    if spectrum is not None:  # nodes without weight are of rounding
        known.check_holds(torch.cat([found.exact, found.nodes[found.weights > 0]]) + damping, noise)

    def shifted(values: Tensor) -> Tensor:
        """Return f at eigenvalues of A, those that are zero to rounding at damping."""
        moved = (values + damping).clamp(min=known.low, max=known.high)
        return values_at(evaluated_by, moved, noise)

    plain = found.sum(shifted)
    if not found.unknown:
        return plain
    ends = [_left_out(evaluated_by, found, row, damping, known) for row in range(len(found.nodes))]
    if not all(math.isfinite(end) for both in ends for end in both):  # nothing is known of the error
        return Estimate(plain.value, math.inf, found.products, degrees=plain.degrees)
    middle = sum((low + high) / 2 for low, high in ends) / len(ends)
    half = sum((high - low) / 2 for low, high in ends) / len(ends)
    return Estimate(
        plain.value + found.unknown * middle,
        math.hypot(plain.stderr, found.unknown * half),
        found.products,
        degrees=plain.degrees,
    )


def _left_out(f: Function, found: Density, row: int, damping: float, known: Any) -> tuple[float, float]:
    """Return (least, largest) h: what one quadrature may leave out of v* f(A + damping I) v; infinite ones for no finite h.

    c_i = beta s_1i s_mi has the size of the root of the weight times the radius. For a tridiagonal matrix with positive
    entries beside the diagonal the signs of s_1i s_mi alternate.
    """
    nodes, order = (found.nodes[row] + damping).clamp(min=known.low, max=known.high).sort()
    weights, radii = found.weights[row][order], found.radii[row][order]
    signs = torch.ones_like(nodes)
    signs[1::2] = -1
    sizes = signs * weights.sqrt() * radii
    if not bool(sizes.any()):
        return 0.0, 0.0
    low = max(known.low, float((nodes - radii)[weights > 0].min()))
    high = min(known.high, float((nodes + radii)[weights > 0].max()))
    if not bool(torch.isfinite(f(torch.tensor([low], dtype=torch.float64, device="cpu"))).all()):
        low = float(nodes[0])

    def q(points: Tensor) -> Tensor:
        """The error of f(A) v along the next Lanczos vector, as a function of the eigenvalue."""
        flat = points.reshape(-1)
        made = torch.cat([divided(f, part, nodes) @ sizes for part in flat.split(4096)])
        return made.reshape(points.shape)

    points = points_between(low, high, nodes)
    h = divided(q, points, nodes) @ sizes
    h = h[torch.isfinite(h)]
    return (float(h.min()), float(h.max())) if len(h) else (-math.inf, math.inf)


@checked
def logdet(  # noqa: PLR0913 -- a public function: request and resources, by keyword
    operator: Any,
    *,
    damping: float = 0.0,
    num_probes: int = 8,
    num_steps: int = 100,
    deflate: Solution | None = None,
    spectrum: Any = None,
    method: Literal["auto", "lanczos", "exact"] = "auto",
    seed: int = 0,
    memory: int | str | None = None,
    executor: Any = None,
    progress: Progress = None,
) -> Estimate:
    """Estimate ln det(A + damping I), with its error: :func:`curvscope.function_trace` of the logarithm.

    Args:
        operator: A, D x D; A + damping I is positive definite.
        damping: mu.
        num_probes: see :func:`curvscope.function_trace`, also for the others.
        num_steps: of each quadrature.
        deflate: a solution of this operator.
        spectrum: what is known of A's spectrum.
        method: see :func:`curvscope.density`.
        seed: of the probes.
        memory: for the bases.
        executor: who computes the products.
        progress: see :data:`.progress.Progress`.

    Returns:
        ``.value, .stderr, .interval, .products``.

    Raises:
        InvalidArgument: an eigenvalue of A + damping I is negative or zero.

    >>> import curvscope as cs
    >>> round(cs.logdet(torch.diag(torch.tensor([1.0, 2.0, 3.0]).double()), damping=1.0).value, 6)  # ln 24
    3.178054
    """
    if not math.isfinite(damping):
        raise InvalidArgument(f"damping={damping}: pass a finite number")
    found: Estimate = function_trace(
        operator,
        "log",
        damping=damping,
        num_probes=num_probes,
        num_steps=num_steps,
        deflate=deflate,
        spectrum=spectrum,
        method=method,
        seed=seed,
        memory=memory,
        executor=executor,
        progress=progress,
    )
    return found
