"""Linear systems: claims on random matrices, products and time against SciPy, deflation on the benchmark networks.

``python benchmarks/solves.py`` solves 2,000 random systems (clusters, indefinite, singular, tiny and huge scales, one and
several right-hand sides, with and without deflation) and compares residuals and error bounds with dense float64 solutions.
Then it counts products against SciPy's cg and minres, and times 16 right-hand sides. ``--systems N`` solves fewer, ``--seed S``
others. ``--data DIR`` measures instead what deflation by 50 pairs saves on mnist16 and 3c3d, at damping 1e-3 lambda_1. SciPy is
needed; run with OMP_NUM_THREADS=1 MKL_NUM_THREADS=1.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse.linalg as scipy_linalg
import torch
from torch import Tensor

import curvscope as cs
import workloads

KINDS = ("power", "clusters", "indefinite", "two clusters", "ill-conditioned", "tiny", "huge", "singular")
PAIRS, DAMPING = 50, 1e-3


@dataclass
class System:
    """A random system of known spectrum.

    Attributes:
        matrix: A, float64.
        values: its eigenvalues.
        right: B.
        damping: mu.
        kind: one of :data:`KINDS`.
    """

    matrix: Tensor
    values: Tensor
    right: Tensor
    damping: float
    kind: str

    @property
    def damped(self) -> Tensor:
        """A + mu I."""
        return self.matrix + self.damping * torch.eye(len(self.values), dtype=torch.float64)


def random_system(seed: int) -> System:
    """A system of a kind, size, damping and number of right-hand sides that the seed chooses."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=generator, dtype=torch.float64))

    kind = KINDS[seed % len(KINDS)]
    size, count = int(draw(20, 150)), int(draw(1, 7))
    values, damping = spectrum(kind, size, draw)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    matrix = (basis * values) @ basis.T
    right = torch.randn(size, count, generator=generator, dtype=torch.float64) * 10 ** draw(-3, 3)
    if kind == "singular" and draw(0, 1) < 0.5:  # half of them have a solution
        right = matrix @ right
    return System((matrix + matrix.T) / 2, values, right, damping, kind)


def spectrum(kind: str, size: int, draw: Any) -> tuple[Tensor, float]:
    """Eigenvalues and damping of a kind."""
    places = torch.arange(1, size + 1, dtype=torch.float64)
    scale = {"tiny": 10 ** draw(-80, -20), "huge": 10 ** draw(20, 80)}.get(kind, 10 ** draw(-4, 4))
    match kind:
        case "clusters":
            values = torch.tensor([1.0, 1.0 + 1e-9, 0.3, 1e-3], dtype=torch.float64)[(places % 4).long()]
        case "indefinite":
            values = torch.linspace(-draw(0.1, 1), 1, size, dtype=torch.float64)
        case "two clusters":
            values = 0.01 * torch.sin(places) + torch.where(places % 10 == 0, torch.where(places % 20 == 0, 1.0, -1.0), 0.0)
        case "ill-conditioned":
            values = torch.logspace(0, -draw(6, 10), size, dtype=torch.float64)
        case "singular":
            values = torch.where(places > 5, places / size, 0.0) * torch.where(places % 2 == 0, 1.0, draw(-1, 1))
        case _:
            values = places ** -draw(0.5, 3)
    damping = 0.0 if kind in ("singular", "indefinite", "ill-conditioned") else 10 ** draw(-4, -1)
    if kind == "two clusters":
        damping = draw(0.02, 0.5)
    return values * scale, damping * scale


def false_claims(system: System, seed: int) -> tuple[list[str], bool]:
    """Return the false claims about a system, and whether an error bound was claimed."""
    size = len(system.values)
    method = ("auto", "cg", "minres")[seed % 3] if float((system.values + system.damping).min()) > 0 else "minres"
    deflate = spectrum_known = None
    if system.kind in ("power", "two clusters", "clusters", "tiny", "huge") and seed % 2:
        k = min(size - 1, int((system.values.abs() > 0.5 * system.damping).sum()) + 1)
        deflate = cs.certify(system.matrix, cs.eigsh(system.matrix, k, tol=1e-8, progress=False), progress=False)
    elif float(system.values.min()) + system.damping > 0:
        spectrum_known = float(system.values.min()) * (1 - 1e-6)
    tol = (1e-5, 1e-8, 1e-3)[seed % 3]
    found = cs.solve(
        system.matrix,
        system.right,
        damping=system.damping,
        tol=tol,
        method=method,
        deflate=deflate,
        spectrum=spectrum_known,
        progress=False,
    )
    return compare(system, found, tol), bool(torch.isfinite(found.error_bounds).all())


def compare(system: System, found: Any, tol: float) -> list[str]:
    """Claims of a solution that dense float64 arithmetic contradicts."""
    wrong, damped = [], system.damped
    norms = (system.right - damped @ found.x).norm(dim=0)
    noise = 1e-13 * (float((system.values + system.damping).abs().max()) * found.x.norm(dim=0) + system.right.norm(dim=0))
    if bool(((norms - found.residual_norms).abs() > noise + 1e-6 * norms).any()):
        wrong.append("residual")
    if found.converged and bool((norms > tol * system.right.norm(dim=0) + noise).any()):
        wrong.append("converged")
    shifted = system.values + system.damping
    if found.inertia == "indefinite" and float(shifted.min()) > 0:
        wrong.append("indefinite")
    if found.inertia == "positive definite" and float(shifted.min()) <= 0:
        wrong.append("definite")
    if found.inertia == "singular" and float(shifted.abs().min()) > 1e-12 * float(shifted.abs().max()):
        wrong.append("singular")
    if found.distance > float(shifted.abs().min()) * (1 + 1e-9):
        wrong.append("distance")
    if found.proof:
        scale = float(shifted.abs().max())  # LAPACK's own underflow and overflow are no part of the comparison
        exact = torch.linalg.solve(damped / scale, system.right) / scale
        own = 1e-15 * len(shifted) * scale / float(shifted.abs().min()) * exact.norm(dim=0)  # error of the dense solution
        if bool(((found.x - exact).norm(dim=0) > found.error_bounds + own).any()):
            wrong.append("error bound")
    return wrong


def random_systems(count: int, seed: int) -> None:
    """Solve random systems and print what was claimed falsely."""
    false: dict[str, list[int]] = {}
    bounded = 0
    for number in range(seed, seed + count):
        wrong, has_bound = false_claims(random_system(number), number)
        bounded += has_bound
        for claim in wrong:
            false.setdefault(claim, []).append(number)
    print(f"{count} random systems: {bounded} with error bounds; false claims: {false or 'none'}")


class Counted:
    """Products of a dense matrix, counted."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.count = matrix.numpy(), 0

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        """The product with a vector."""
        self.count += 1
        return np.asarray(self.matrix @ vector)


def scipy_products(matrix: Tensor, right: Tensor, name: str, tol: float) -> tuple[int, float]:
    """Products of SciPy's solver, and the relative residual that it reached."""
    counted = Counted(matrix)
    operator = scipy_linalg.LinearOperator(tuple(matrix.shape), matvec=counted, dtype=np.float64)
    x, _ = getattr(scipy_linalg, name)(operator, right.numpy(), rtol=tol)
    return counted.count, float((right - matrix @ torch.from_numpy(x)).norm() / right.norm())


def against_scipy() -> Iterator[str]:
    """Products for one right-hand side, at the residual that SciPy reached."""
    for name in ("cg", "minres"):
        ratios = []
        for number in range(40):
            system = random_system(8 * number + (0 if name == "cg" else 2))
            right, tol = system.right[:, 0].contiguous(), (1e-4, 1e-8)[number % 2]
            theirs, reached = scipy_products(system.damped, right, name, tol)
            # Both CGs stop at the first residual below tol; SciPy's MINRES stops by another rule, so ours goes where it got to.
            same = tol if name == "cg" else min(max(reached * (1 + 1e-3), 1e-12), 0.9)
            found = cs.solve(system.damped, right, tol=same, method=name, progress=False)
            ratios.append(found.cost.products / theirs)
        above = sum(ratio > 1.05 for ratio in ratios)
        yield (
            f"{name}: products over SciPy's, 40 systems: median {statistics.median(ratios):.2f}, largest {max(ratios):.2f}, "
            f"{above} above 1.05"
        )


def sixteen() -> Iterator[str]:
    """Seconds for 16 right-hand sides, medians of 3: a Gauss-Newton matrix of the benchmarks, SciPy one by one."""
    G = cs.ggn(*workloads.load("tanh-MLP", torch.float64))
    damping = DAMPING * float(cs.eigsh(G, 1, progress=False).eigenvalues[0])
    damped = G.shift(damping).to_scipy()
    right = torch.randn(G.shape[0], 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _ = cs.solve(G, right, damping=damping, max_products=64, progress=False)  # traced and measured before the clock starts
    for name in ("cg", "minres"):
        ours, theirs = [], []
        for _ in range(3):
            start = time.perf_counter()
            reached = 0.0
            for j in range(16):
                x, _ = getattr(scipy_linalg, name)(damped, right[:, j].numpy(), rtol=1e-5)
                reached = max(reached, float(np.linalg.norm(damped @ x - right[:, j].numpy()) / right[:, j].norm()))
            theirs.append(time.perf_counter() - start)
            start = time.perf_counter()
            cs.solve(G, right, damping=damping, tol=reached * (1 + 1e-3), method=name, progress=False)
            ours.append(time.perf_counter() - start)
        ratio = statistics.median(ours) / statistics.median(theirs)
        yield f"{name}: 16 right-hand sides, D = {G.shape[0]}: {statistics.median(ours):.1f} s, {ratio:.2f} of SciPy's"


def deflation(folder: str, names: list[str]) -> Iterator[str]:
    """Products of CG with and without 50 known pairs, on Gauss-Newton matrices of the benchmark networks."""
    for name in names:
        problem = cs.problems.get(name, data=folder)
        model = problem.model()
        G = cs.ggn(model, problem.criterion, problem.curvature_batches("train"))
        solution = cs.eigsh(G, PAIRS, progress=False)
        damping = DAMPING * float(solution.eigenvalues[0])
        gradient = G.gradient()
        plain = cs.solve(G, gradient, damping=damping, progress=False)
        known = cs.solve(G, gradient, damping=damping, deflate=solution, progress=False)
        yield (
            f"{name}: {plain.products} products without, {known.products} with {PAIRS} pairs "
            f"({known.products / plain.products:.2f}), both {plain.status.code}, {known.status.code}"
        )


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", help="folder of data sets: measure deflation on the networks instead")
    parser.add_argument("--problem", nargs="*", default=["mnist16", "cifar10_3c3d"], help="networks for --data")
    options = parser.parse_args()
    if options.data:
        for line in deflation(options.data, options.problem):
            print(line, flush=True)
        return
    random_systems(options.systems, options.seed)
    for line in [*against_scipy(), *sixteen()]:
        print(line, flush=True)


if __name__ == "__main__":
    main()
