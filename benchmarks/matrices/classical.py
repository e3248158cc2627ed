"""Classical test matrices: closed forms, extreme multiplicities, ill conditioning, hard spectra."""

import numpy as np
import scipy.linalg
import scipy.sparse as sparse

from matrices.base import known, tridiagonal
from matrices.kernels import normals

ROSSER = [
    [611, 196, -192, 407, -8, -52, -49, 29],
    [196, 899, 113, -192, -71, -43, -8, -44],
    [-192, 113, 899, 196, 61, 49, 8, 52],
    [407, -192, 196, 611, 8, 44, 59, -23],
    [-8, -71, 61, 8, 411, -599, 208, 208],
    [-52, -43, 49, 44, -599, 411, 208, 208],
    [-49, -8, 8, 59, 208, 208, 99, -911],
    [29, -44, 52, -23, 208, 208, -911, 99],
]


def spread(values: np.ndarray) -> sparse.csr_array:
    """Diagonal matrix; Krylov methods see nothing but the values."""
    return sparse.csr_array(sparse.diags_array(np.asarray(values, dtype=float)))


def diagonal(name: str, make):
    """Register a diagonal matrix with these values."""
    known(name, "classical", make)(lambda: spread(make()))


def reflected(values: np.ndarray) -> np.ndarray:
    """A dense matrix with these eigenvalues, by two Householder reflections."""
    made = np.diag(np.asarray(values, dtype=float))
    for turn in (normals(len(values), 1)[:, 0], np.cos(np.arange(len(values)))):
        v = turn / np.linalg.norm(turn)
        made -= 2 * np.outer(v, v @ made)
        made -= 2 * np.outer(made @ v, v)
    return (made + made.T) / 2


diagonal("1/j, 20000", lambda: 1 / np.arange(1.0, 20001))
diagonal("j^-0.7 alternating, 2000", lambda: np.arange(1.0, 2001) ** -0.7 * (-1.0) ** np.arange(2000))
diagonal("j^-0.7, every third negative, 1200", lambda: np.arange(1.0, 1201) ** -0.7 * np.where(np.arange(1200) % 3 == 2, -1, 1))
diagonal("triple above an even spectrum", lambda: np.r_[1, 1, 1, np.linspace(0.98, 0, 1197)])
diagonal("every eigenvalue three times", lambda: np.repeat(np.linspace(1, 0, 400), 3))
diagonal("50 x 20 and 1 x 180", lambda: np.r_[np.full(180, 1.0), np.full(20, 50.0)].repeat(6))
diagonal("plus and minus pairs", lambda: np.concatenate([np.linspace(1, 0.01, 600), -np.linspace(1, 0.01, 600)]))
diagonal("clusters of five, 1e-7 wide", lambda: (np.linspace(1, 0.1, 240)[:, None] * (1 + 1e-7 * np.arange(5))).ravel())
diagonal("geometric 0.97", lambda: 0.97 ** np.arange(1200.0))
diagonal("null space of 1100", lambda: np.r_[np.linspace(3, 1, 100), np.zeros(1100)])
diagonal("uniform -1 to 1", lambda: np.linspace(-1, 1, 1501))
diagonal(
    "30 outliers over a semicircle",
    lambda: np.r_[3 * np.arange(1, 31) ** -0.5 + 1.1, np.cos(np.pi * np.arange(1, 1471) / 1471)],
)


@known("six rigid-body modes", "classical", lambda: np.r_[np.zeros(6), 1.5e-3 * np.arange(1.0, 1195) ** 1.5])
def _():
    return reflected(np.r_[np.zeros(6), 1.5e-3 * np.arange(1.0, 1195) ** 1.5])


@known("Clement 1001", "classical", lambda: np.arange(-1000.0, 1001, 2))
def _():
    return tridiagonal(np.zeros(1001), np.sqrt(np.arange(1, 1001) * np.arange(1000, 0, -1.0)))


@known("Wilkinson 1001", "classical")
def _():
    return tridiagonal(np.abs(np.arange(-500.0, 501)), np.ones(1000))


@known("Hilbert 1200", "classical")
def _():
    index = np.arange(1, 1201)
    return 1.0 / (index[:, None] + index - 1)


@known("Lehmer 1200", "classical")
def _():
    index = np.arange(1, 1201)
    return np.minimum(index[:, None], index) / np.maximum(index[:, None], index)


@known("Pei 1200", "classical", lambda: np.r_[np.full(1199, 2.0), 1202.0])
def _():
    return np.ones((1200, 1200)) + 2 * np.eye(1200)


@known("Moler 1200", "classical")
def _():
    index = np.arange(1, 1201)
    return np.minimum(index[:, None], index) - 2.0 + np.diag(np.full(1200, 2.0))


@known("Fiedler |i - j| 1200", "classical")
def _():
    index = np.arange(1200.0)
    return np.abs(index[:, None] - index)


@known("Ris 1200", "classical")
def _():
    index = np.arange(1200)
    return 0.5 / (1200 - index[:, None] - index - 0.5)


@known("prolate 1200", "classical")
def _():
    offset = np.arange(1200)
    return scipy.linalg.toeplitz(np.where(offset == 0, 0.5, np.sin(np.pi * offset / 2) / (np.pi * np.maximum(offset, 1))))


@known("Rosser x 150", "classical")
def _():
    return sparse.kron(sparse.eye_array(150), sparse.csr_array(np.array(ROSSER, dtype=float)))


@known("thirty copies of a full matrix", "classical")
def _():
    part = normals(60, 60)
    return sparse.kron(sparse.eye_array(30), sparse.csr_array((part + part.T) / 2))


@known("Hadamard 1024", "classical", lambda: np.repeat([32.0, -32.0], 512))
def _():
    return scipy.linalg.hadamard(1024).astype(float)


@known("arrow 1500", "classical")
def _():
    made = sparse.lil_array((1500, 1500))
    made.setdiag(np.linspace(1, 2, 1500))
    made[0, 1:] = made[1:, 0] = 0.05
    return sparse.csr_array(made)


@known("Jacobi matrix of the Hermite polynomials", "classical")
def _():
    return tridiagonal(np.zeros(1200), np.sqrt(np.arange(1, 1200) / 2.0))


@known("golden semicircle 1200", "classical")
def _():
    part = normals(1200, 1200)
    return (part + part.T) / 2400**0.5
