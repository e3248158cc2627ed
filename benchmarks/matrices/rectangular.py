"""Rectangular and square non-symmetric matrices, for singular triplets."""

import numpy as np
import scipy.fft
import scipy.sparse as sparse

from matrices.base import circulant_adjacency, known
from matrices.kernels import normals, points


@known("grcar 1000", "rectangular")
def _():
    size = 1000
    offsets = [-1, 0, 1, 2, 3]
    return sparse.diags_array([np.full(size - abs(o), -1.0 if o < 0 else 1.0) for o in offsets], offsets=offsets)


@known("incidence of a 40 x 40 torus", "rectangular")
def _():
    upper = sparse.coo_array(
        sparse.triu(
            sparse.kron(circulant_adjacency(40, 1), sparse.eye_array(40))
            + sparse.kron(sparse.eye_array(40), circulant_adjacency(40, 1))
        )
    )
    edges = np.arange(upper.nnz)
    signs = np.r_[np.ones(upper.nnz), -np.ones(upper.nnz)]
    return sparse.csr_array((signs, (np.r_[edges, edges], np.r_[upper.coords[0], upper.coords[1]])), (upper.nnz, 1600))


@known("Kahan 600", "rectangular")
def _():
    sine, cosine = np.sin(1.2), np.cos(1.2)
    return np.diag(sine ** np.arange(600.0)) @ (np.eye(600) - cosine * np.triu(np.ones((600, 600)), 1))


@known("Parter 800", "rectangular")
def _():
    index = np.arange(800)
    return 1 / (index[:, None] - index + 0.5)


@known("blur 1000 to 900", "rectangular")
def _():
    x, y = np.linspace(0, 1, 900), np.linspace(0, 1, 1000)
    return np.exp(-((x[:, None] - y) ** 2) / (2 * 0.02**2)) / 1000


@known("Vandermonde on Chebyshev nodes", "rectangular")
def _():
    return np.polynomial.legendre.legvander(np.cos(np.pi * (np.arange(1500) + 0.5) / 1500), 199)


@known("divisibility 1200 x 500", "rectangular")
def _():
    return sparse.csr_array((np.arange(1, 1201)[:, None] % np.arange(1, 501) == 0).astype(float))


@known("random features 900 x 1200", "rectangular")
def _():
    return np.cos(points(900, 5) @ normals(5, 1200) * 2)


@known("nilpotent shift 1000", "rectangular")
def _():
    return sparse.diags_array([np.ones(999)], offsets=[1])


@known("convection-diffusion 1500", "rectangular")
def _():
    return sparse.diags_array([np.full(1499, -1.8), np.full(1500, 2.0), np.full(1499, -0.2)], offsets=[-1, 0, 1])


@known("Frank 1000", "rectangular")
def _():
    index = np.arange(1, 1001)
    made = np.minimum(index[:, None], index).astype(float)[::-1, ::-1].T
    return np.triu(made, -1)


@known("forty copies of a full block", "rectangular")
def _():
    return sparse.kron(sparse.eye_array(40), sparse.csr_array(normals(30, 20)))


@known("Lotkin 800", "rectangular")
def _():
    index = np.arange(1, 801)
    made = 1.0 / (index[:, None] + index - 1)
    made[0] = 1
    return made


@known("orthogonal columns times three levels", "rectangular")
def _():
    return scipy.fft.dct(np.eye(1000), norm="ortho")[:, :600] * np.repeat([3.0, 2.0, 1.0], 200)
