"""A named matrix of known provenance, and its exact spectrum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg
import scipy.sparse as sparse

MATRICES: dict[str, KnownMatrix] = {}
"""Every matrix by name, filled by :func:`known`."""


@dataclass(frozen=True)
class KnownMatrix:
    """A matrix made by formula.

    Attributes:
        name: unique.
        family: "graph", "finite differences", "spins", "kernel", "classical", "network" or "rectangular" (for ``svds`` only).
        make: constructor of the matrix, a SciPy sparse array or a NumPy array.
        closed_form: constructor of all eigenvalues; None: they come from a dense float64 decomposition.

    >>> MATRICES["path 2000"].matrix.shape
    (2000, 2000)
    """

    name: str
    family: str
    make: Callable[[], sparse.sparray | np.ndarray]
    closed_form: Callable[[], np.ndarray] | None = None

    @property
    def symmetric(self) -> bool:
        """True if the matrix has eigenpairs; otherwise it has singular triplets only."""
        return self.family != "rectangular"

    @cached_property
    def matrix(self) -> sparse.csr_array | np.ndarray:
        """The matrix, made at the first access."""
        made = self.make()
        return sparse.csr_array(made) if sparse.issparse(made) else np.asarray(made)

    @cached_property
    def dense(self) -> np.ndarray:
        """The matrix as a dense float64 array."""
        return self.matrix.toarray() if sparse.issparse(self.matrix) else self.matrix

    @cached_property
    def eigenvalues(self) -> np.ndarray:
        """All eigenvalues, ascending."""
        values = scipy.linalg.eigvalsh(self.dense) if self.closed_form is None else self.closed_form()
        return np.sort(values)

    @cached_property
    def singular_values(self) -> np.ndarray:
        """All singular values, descending."""
        values = np.abs(self.eigenvalues) if self.symmetric else scipy.linalg.svdvals(self.dense)
        return np.sort(values)[::-1]

    def release(self) -> None:
        """Drop everything that was computed, to free memory."""
        for name in ("matrix", "dense", "eigenvalues", "singular_values"):
            self.__dict__.pop(name, None)


def known(
    name: str, family: str, closed_form: Callable[[], np.ndarray] | None = None
) -> Callable[[Callable[[], sparse.sparray | np.ndarray]], Callable[[], sparse.sparray | np.ndarray]]:
    """Register the decorated constructor under a name."""

    def register(make: Callable[[], sparse.sparray | np.ndarray]) -> Callable[[], sparse.sparray | np.ndarray]:
        if name in MATRICES:
            raise ValueError(f"two matrices are called {name!r}")
        MATRICES[name] = KnownMatrix(name, family, make, closed_form)
        return make

    return register


def tridiagonal(diagonal: np.ndarray, beside: np.ndarray) -> sparse.csr_array:
    """Symmetric tridiagonal matrix."""
    return sparse.csr_array(sparse.diags_array([beside, diagonal, beside], offsets=[-1, 0, 1]))


def laplacian(adjacency: sparse.sparray) -> sparse.csr_array:
    """Degrees minus adjacency."""
    degrees = np.asarray(adjacency.sum(axis=1)).ravel()
    return sparse.csr_array(sparse.diags_array(degrees) - adjacency)


def from_edges(size: int, edges: np.ndarray) -> sparse.csr_array:
    """Adjacency of an undirected graph, from an (m, 2) array of different edges."""
    rows, columns = np.asarray(edges).T
    upper = sparse.coo_array((np.ones(len(rows)), (rows, columns)), (size, size))
    return sparse.csr_array(upper + upper.T)


def circulant_adjacency(size: int, *jumps: int) -> sparse.csr_array:
    """Adjacency of the graph on 0..n-1 with edges between i and i + jump."""
    edges = [np.stack([np.arange(size), (np.arange(size) + jump) % size], axis=1) for jump in jumps]
    return from_edges(size, np.concatenate(edges))


def kronecker_sum(*parts: sparse.sparray) -> sparse.csr_array:
    """A x I x ... + I x B x ... + ..., the operator of a product grid or graph."""
    total = parts[0]
    for part in parts[1:]:
        total = sparse.kron(total, sparse.eye_array(part.shape[0])) + sparse.kron(sparse.eye_array(total.shape[0]), part)
    return sparse.csr_array(total)


def sums(*spectra: np.ndarray) -> np.ndarray:
    """Eigenvalues of a Kronecker sum: all sums with one summand of each."""
    total = np.zeros(1)
    for values in spectra:
        total = (total[:, None] + values[None, :]).ravel()
    return total
