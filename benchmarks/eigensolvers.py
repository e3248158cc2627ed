"""The eigensolvers that are compared, ours and others', each with products that are counted."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse.linalg as scipy_linalg
import torch
from torch import Tensor

import curvscope as cs
from sketches import patched_skerch

Found = tuple[Tensor, Tensor | None, bool | None]
"""Eigenvalues, vectors (None if the method gives none), and whether it claims to have converged (None: it claims nothing)."""


class Counted:
    """Products that are counted; for every library in the form it takes."""

    def __init__(self, multiply: Callable[[Tensor], Tensor], size: int, dtype: torch.dtype) -> None:
        self.multiply, self.shape, self.dtype, self.count = multiply, (size, size), dtype, 0
        self.device = torch.device("cpu")

    def __matmul__(self, block: Tensor) -> Tensor:
        self.count += 1 if block.ndim == 1 else block.shape[1]
        return self.multiply(block[:, None])[:, 0] if block.ndim == 1 else self.multiply(block)

    def __rmatmul__(self, block: Tensor) -> Tensor:
        return (self @ block.mH).mH

    def scipy(self) -> scipy_linalg.LinearOperator:
        """As SciPy takes it."""

        def apply(array: np.ndarray) -> np.ndarray:
            block = torch.from_numpy(np.ascontiguousarray(array)).to(self.dtype)
            return (self @ block).numpy()

        dtype = torch.empty(0, dtype=self.dtype).numpy().dtype
        return scipy_linalg.LinearOperator(self.shape, matvec=apply, matmat=apply, dtype=dtype)


def arpack(A: Counted, k: int, tol: float) -> Found:
    """SciPy's eigsh."""
    start = np.random.default_rng(0).standard_normal(A.shape[0])
    try:
        values, vectors = scipy_linalg.eigsh(A.scipy(), k=k, which="LM", tol=tol, v0=start)
    except scipy_linalg.ArpackNoConvergence as error:
        return torch.from_numpy(error.eigenvalues), torch.from_numpy(error.eigenvectors), False
    return torch.from_numpy(values), torch.from_numpy(vectors), True


def lobpcg(A: Counted, k: int, tol: float, scale: float, iterations: int = 40) -> Found:
    """SciPy's lobpcg, both ends by two runs; its tolerance is absolute, so it is told the scale: a favour."""
    found = []
    for largest in (True, False):
        start = np.random.default_rng(0).standard_normal((A.shape[0], k))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            values, vectors = scipy_linalg.lobpcg(
                A.scipy(), start.astype(A.scipy().dtype), largest=largest, maxiter=iterations, tol=tol * scale
            )
        found.append((values, vectors, not any("Exited" in str(w.message) for w in caught)))
    values, vectors = np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found], axis=1)
    best = np.argsort(-np.abs(values))[:k]
    return torch.from_numpy(values[best]), torch.from_numpy(vectors[:, best]), all(f[2] for f in found)


def eigenthings(A: Counted, k: int, tol: float, steps: int, *, reorthogonalize: bool | None = None) -> Found:
    """hessian-eigenthings' Lanczos."""
    from hessian_eigenthings.algorithms.lanczos import lanczos
    from hessian_eigenthings.operators.base import LambdaOperator

    operator = LambdaOperator(lambda v: A @ v, A.shape[0], dtype=A.dtype)
    result = lanczos(operator, k=k, max_iter=steps, tol=tol, reorthogonalize=reorthogonalize, seed=0)
    claim = bool(result.converged.all())
    return result.eigenvalues.double(), result.eigenvectors.T, claim


def skerch(A: Counted, k: int, products: int, recovery: str) -> Found:
    """One of skerch's four recoveries, at a number of products."""
    algorithms = patched_skerch()
    outer = {"hmt": products // 2, "nystrom": products, "singlepass": products}.get(recovery, products // 3)
    name = f"oversampled_{2 * outer}" if recovery == "oversampled" else recovery
    with contextlib.redirect_stdout(io.StringIO()):
        values, vectors = algorithms.seigh(A, "cpu", A.dtype, outer, 0, "gaussian", name, meas_blocksize=32)
    best = values.abs().argsort(descending=True)[:k]
    return values[best].double(), vectors[:, best], None


def ours(A: Counted, k: int, **options: Any) -> Found:
    """Our block Krylov; its own residual products are part of the count."""
    solution = cs.eigsh(A, k=k, method="krylov", preflight=False, progress=False, **options)
    A.count = solution.cost.products
    A.verified = solution.cost.certificate_products
    A.kept = solution.cost.seconds - solution.cost.stages.get("residuals", 0.0)
    return solution.eigenvalues, solution.eigenvectors.to_tensor(), solution.status.converged


def curvlinops_product(model: Any, criterion: Any, batches: list) -> Callable[[Tensor], Tensor]:
    """The Hessian of curvlinops."""
    from curvlinops import HessianLinearOperator

    operator = HessianLinearOperator(model, criterion, list(model.parameters()), batches, check_deterministic=False)
    return lambda block: operator @ block


def peers(k: int, products: int, scale: float, iterations: int = 40) -> Iterator[tuple[str, Callable[[Counted], Found]]]:
    """Every other eigensolver, on the same products, at about the number of products that ours took."""
    yield f"SciPy lobpcg, {iterations} iterations", lambda A: lobpcg(A, k, 1e-3, scale, iterations)
    yield "hessian-eigenthings, its defaults", lambda A: eigenthings(A, k, 1e-4, 2 * k)
    yield "hessian-eigenthings, reorthogonalised", lambda A: eigenthings(A, k, 1e-4, products, reorthogonalize=True)
    for recovery in ("hmt", "nystrom", "singlepass", "oversampled"):
        yield f"skerch {recovery}", lambda A, recovery=recovery: skerch(A, k, products, recovery)
