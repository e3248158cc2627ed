"""A sketch that grows until its estimated error is small enough, and throws nothing away."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from curvscope.certificates import FrobeniusEstimate, sample
from curvscope.errors import InvalidArgument
from curvscope.measurement import Meter, check_hermitian, draw
from curvscope.operators import as_operator
from curvscope.sketches import SketchKind, TestMatrix, check_kind
from curvscope.solvers.certification import ROLE
from curvscope.solvers.driver import EigenProblem, Pairs, Prepared, Resources, solve
from curvscope.solvers.results import Solution
from curvscope.solvers.sizing import check_block_size
from curvscope.solvers.sketched._common import hermitian_request
from curvscope.solvers.sketched._seigh import core_pairs, left_size
from curvscope.system import Progress, checked
from curvscope.tall import InMemory, orthonormalize

GROWTH = 1.5
"""Each round's sketch over the last one's."""


@checked
def adaptive_seigh(  # noqa: PLR0913 -- the method's sizes and the solve's, as in the papers
    operator: Any,
    *,
    target: float = 0.1,
    num_outer: int = 16,
    max_products: int | None = None,
    num_probes: int = 30,
    sketch: SketchKind = "gaussian",
    left_sketch: SketchKind = "sparse_sign",
    seed: int = 0,
    block_size: int = 32,
    executor: Any = None,
    progress: Progress = None,
) -> Solution:
    r"""SEIGH with as many measurements as an error asks for.

    Starts from ``num_outer`` (and twice as many inner measurements), estimates :math:`\|A - \hat A\|_F / \|A\|_F` with Gaussian
    probes as :func:`curvscope.posterior_error` does, and enlarges the sketch by half until the estimate is at most ``target``.
    All earlier products are used again: a column of a test matrix does not depend on how many there are, earlier inner
    measurements become outer ones, and the probes are multiplied once.

    Args:
        operator: Hermitian, real or complex; anything that ``as_operator`` takes.
        target: relative Frobenius error wanted, in (0, 1).
        num_outer: of the first round; at most D.
        max_products: of the sketch, probes not counted; default D.
        num_probes: for the estimate.
        sketch: kind of the right test matrix; see :class:`.TestMatrix`.
        left_sketch: kind of the left one.
        seed: another one gives an independent sketch and independent probes.
        block_size: columns a product call.
        executor: who computes the products, the columns of each block dealt out; see :func:`curvscope.eigsh`. None: this
            process.
        progress: see :data:`.progress.Progress`.

    Returns:
        The solution of the last round, status "approximate" if the target was reached and "partly" if not; ``diagnostics``
        holds "relative_error", "relative_error_stderr" and "rounds", beside those of :func:`curvscope.seigh`.

    Cost: num_inner + num_probes products, and k for the residuals; the work outside the products is about three times that of
        the last round; memory: D x num_inner entries once, D x num_outer twice.

    Raises:
        InvalidArgument: sizes or target that cannot work. NotHermitian, NotFinite: as :func:`curvscope.seigh`.
    Limits: the estimate that stopped it was looked at in every round: multiply its failure probability by "rounds".

    >>> A = torch.diag(0.8 ** torch.arange(100.0, dtype=torch.float64))
    >>> solution = adaptive_seigh(A, target=0.05)
    >>> solution.diagnostics["relative_error"] <= 0.05, solution.cost.products < 100 + 30
    (True, True)
    """
    operator = as_operator(operator)
    size = operator.shape[0]
    num_outer = min(num_outer, size)
    most = size if max_products is None else min(max_products, size)
    num_inner = min(2 * num_outer, most)
    _check(target, num_probes, num_outer, num_inner, max_products)
    check_block_size(block_size)
    num_outer = num_inner if num_inner == size else num_outer
    hermitian_request(operator, num_outer=num_outer, num_inner=num_inner, k=None, which="LM", sketch=sketch)
    check_kind(left_sketch, operator.dtype)
    rounds = _Rounds(target, (num_outer, num_inner, most), num_probes, (sketch, left_sketch), seed, block_size)
    options = {"method": "adaptive_seigh", "target": target, "sketch": sketch, "left_sketch": left_sketch, "seed": seed}
    problem = EigenProblem(operator, None, seed=seed)
    solution = solve(problem, Prepared(rounds.find, options), Resources(executor=executor, progress=progress))
    return _judged(solution, target)


@dataclass(frozen=True)
class _Rounds:
    """Sketches of which each continues the one before.

    Attributes:
        target: relative error wanted.
        sizes: num_outer and num_inner of the first, and most products.
        num_probes: for the estimate.
        sketches: kinds of the right test matrix and the left one.
        seed: of all random numbers.
        block_size: columns a product call.
    """

    target: float
    sizes: tuple[int, int, int]
    num_probes: int
    sketches: tuple[SketchKind, SketchKind]
    seed: int
    block_size: int

    def find(self, meter: Meter) -> Pairs:
        """Enlarge the sketch until the estimate is small enough, or the budget is spent."""
        operator, (num_outer, num_inner, most) = meter.operator, self.sizes
        size = operator.shape[0]
        right, left = (
            draw(kind, operator, seed=self.seed, role=role) for kind, role in zip(self.sketches, ("right", "left"), strict=True)
        )
        probes = draw("gaussian", operator, seed=self.seed, role=ROLE).columns(0, self.num_probes)
        with meter.stage("probes", self.num_probes):
            seen = meter.multiply(probes)
        measured = InMemory(torch.empty(size, 0, dtype=operator.dtype, device=operator.device))
        rounds = 0
        while True:
            rounds += 1
            with meter.stage("sketch", num_inner - measured.shape[1]):
                measured = _extended(meter, right, measured, num_inner, self.block_size)
            with meter.stage("recovery", 0):
                pairs = _recover(measured, right, left, num_outer)
            with meter.stage("estimate", 0):
                samples = sample(probes, seen, pairs.eigenvectors, pairs.eigenvalues, pairs.eigenvectors)
                estimate = FrobeniusEstimate(samples, pairs.eigenvalues, operator.dtype.is_complex)
            if estimate.relative <= self.target or num_inner == most:
                break
            num_inner = min(most, max(num_inner + 2, int(GROWTH * num_inner)))
            num_outer = num_inner if num_inner == size else max(1, num_inner // 2)  # D products know the whole matrix
        stderr = estimate.error_stderr / estimate.norm if estimate.norm else 0.0
        errors = {"relative_error": estimate.relative, "relative_error_stderr": stderr, "rounds": float(rounds)}
        sizes = {"num_outer": num_outer, "num_inner": num_inner, "num_probes": self.num_probes}
        return replace(pairs, diagnostics=pairs.diagnostics | errors, chosen=pairs.chosen | sizes)


def _extended(meter: Meter, right: TestMatrix, measured: InMemory, count: int, block_size: int) -> InMemory:
    """The measurements so far and those up to ``count``."""
    done = measured.shape[1]
    longer = InMemory.empty(measured.shape[0], count, measured.dtype, measured.device)
    longer.write(0, measured.tensor)
    for start in range(done, count, block_size):
        stop = min(start + block_size, count)
        directions = right.columns(start, stop)
        longer.write(start, meter.multiply(directions))
        if start == 0:
            check_hermitian(InMemory(directions), longer.leading(stop), meter.operator)
    return longer


def _recover(measured: InMemory, right: TestMatrix, left: TestMatrix, num_outer: int) -> Pairs:
    num_inner = measured.shape[1]
    num_left = left_size(None, "hermitian", num_outer, num_inner, measured.shape[0])
    whole = orthonormalize(measured.leading(num_outer))
    further = left.adjoint_multiply(InMemory(measured.columns(num_outer, num_inner)), 0, num_left)
    compressed = left.adjoint_multiply(whole.basis, 0, num_left)
    directions = right.adjoint_multiply(whole.basis, 0, num_inner).mH
    return core_pairs(whole, compressed, further, directions, "hermitian", k=None, which="LM")


def _judged(solution: Solution, target: float) -> Solution:
    """Return the solution with a status that says whether the target was reached."""
    error, products = solution.diagnostics["relative_error"], solution.provenance["options"]["num_inner"]
    reached = f"the estimated relative error is {error:.2g} after {products} products, target {target:g}"
    if error <= target:
        return replace(solution, status=replace(solution.status, text=f"{reached}; judge each pair by its residual"))
    advice = "raise max_products, up to D, or use eigsh(..., method='krylov') for single pairs"
    return replace(solution, status=replace(solution.status, code="partly", text=f"{reached} not reached: {advice}"))


def _check(target: float, num_probes: int, num_outer: int, num_inner: int, max_products: int | None) -> None:
    if not 0 < target < 1:
        raise InvalidArgument(f"target={target}: a relative error, choose between 0 and 1, such as 0.1")
    if num_probes < 2:
        raise InvalidArgument(f"num_probes={num_probes}: choose at least 2, better 30")
    if num_outer > num_inner:
        raise InvalidArgument(f"max_products={max_products} is less than num_outer={num_outer}: allow twice num_outer")
