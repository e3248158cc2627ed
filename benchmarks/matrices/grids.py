"""Finite differences: Laplacians, plates, beams, Schroedinger operators, free structures with rigid-body modes."""

import numpy as np
import scipy.sparse as sparse

from matrices.base import known, kronecker_sum, sums, tridiagonal


def dirichlet(size: int) -> sparse.csr_array:
    """-d2/dx2 with zero boundary values, grid spacing one."""
    return tridiagonal(np.full(size, 2.0), np.full(size - 1, -1.0))


def dirichlet_values(size: int) -> np.ndarray:
    """Its eigenvalues."""
    return 2 - 2 * np.cos(np.pi * np.arange(1, size + 1) / (size + 1))


def second_differences(size: int) -> sparse.csr_array:
    """(n - 2) x n matrix of second differences."""
    return sparse.csr_array(
        sparse.diags_array(
            [np.ones(size - 2), np.full(size - 2, -2.0), np.ones(size - 2)], offsets=[0, 1, 2], shape=(size - 2, size)
        )
    )


@known("Poisson 35 x 50", "finite differences", lambda: sums(dirichlet_values(35), dirichlet_values(50)))
def _():
    return kronecker_sum(dirichlet(35), dirichlet(50))


@known("Poisson 40 x 40", "finite differences", lambda: sums(dirichlet_values(40), dirichlet_values(40)))
def _():
    return kronecker_sum(dirichlet(40), dirichlet(40))


@known("Poisson 12^3", "finite differences", lambda: sums(*[dirichlet_values(12)] * 3))
def _():
    return kronecker_sum(*[dirichlet(12)] * 3)


@known("Poisson 27^3", "finite differences", lambda: sums(*[dirichlet_values(27)] * 3))
def _():
    return kronecker_sum(*[dirichlet(27)] * 3)


@known("Neumann 40 x 41", "finite differences", lambda: sums(*[2 - 2 * np.cos(np.pi * np.arange(n) / n) for n in (40, 41)]))
def _():
    def neumann(size):
        diagonal = np.full(size, 2.0)
        diagonal[[0, -1]] = 1
        return tridiagonal(diagonal, np.full(size - 1, -1.0))

    return kronecker_sum(neumann(40), neumann(41))


@known("anisotropic 40 x 40", "finite differences", lambda: sums(dirichlet_values(40), 1e-3 * dirichlet_values(40)))
def _():
    return kronecker_sum(dirichlet(40), 1e-3 * dirichlet(40))


@known("Helmholtz 40 x 41", "finite differences", lambda: sums(dirichlet_values(40), dirichlet_values(41)) - 3.3)
def _():
    return kronecker_sum(dirichlet(40), dirichlet(41)) - 3.3 * sparse.eye_array(1640)


@known("clamped beam 1200", "finite differences")
def _():
    return dirichlet(1200) @ dirichlet(1200)


@known("plate 36 x 36", "finite differences", lambda: sums(dirichlet_values(36), dirichlet_values(36)) ** 2)
def _():
    grid = kronecker_sum(dirichlet(36), dirichlet(36))
    return grid @ grid


@known("free beam 1200", "finite differences")
def _():
    bending = second_differences(1200)
    return bending.T @ bending


@known("jump coefficients 1500", "finite differences")
def _():
    stiffness = np.where(np.arange(1501) // 150 % 2, 1000.0, 1.0)
    return tridiagonal(stiffness[:-1] + stiffness[1:], -stiffness[1:-1])


@known("harmonic oscillator 1500", "finite differences")
def _():
    x = np.linspace(-12, 12, 1500)
    step = x[1] - x[0]
    return dirichlet(1500) / step**2 + sparse.diags_array(x**2)


@known("double well 1500", "finite differences")
def _():
    x = np.linspace(-6, 6, 1500)
    step = x[1] - x[0]
    return dirichlet(1500) / step**2 + sparse.diags_array((x**2 - 9) ** 2)


@known("Aubry-Andre 1597", "finite differences")
def _():
    potential = 2.2 * np.cos(2 * np.pi * (5**0.5 - 1) / 2 * np.arange(1597))
    return tridiagonal(potential, np.ones(1596))


@known("Mathieu 1200", "finite differences")
def _():
    x = 2 * np.pi * np.arange(1200) / 1200
    ring = sparse.lil_array(dirichlet(1200) * (1200 / (2 * np.pi)) ** 2)
    ring[0, 1199] = ring[1199, 0] = -((1200 / (2 * np.pi)) ** 2)
    return sparse.csr_array(ring) + sparse.diags_array(200 * np.cos(2 * x))


def truss(columns: int, rows: int) -> sparse.csr_array:
    """Stiffness of a free plane truss on a grid, bars along edges and both diagonals: three rigid-body modes."""
    x, y = np.meshgrid(np.arange(columns), np.arange(rows), indexing="ij")
    places, index = np.stack([x.ravel(), y.ravel()], axis=1).astype(float), np.arange(columns * rows).reshape(columns, rows)
    bars = [(index[:-1].ravel(), index[1:].ravel()), (index[:, :-1].ravel(), index[:, 1:].ravel())]
    bars += [(index[:-1, :-1].ravel(), index[1:, 1:].ravel()), (index[1:, :-1].ravel(), index[:-1, 1:].ravel())]
    one, other = (np.concatenate(ends) for ends in zip(*bars, strict=True))
    direction = places[other] - places[one]
    length = np.linalg.norm(direction, axis=1)
    direction /= length[:, None]
    bar = np.arange(len(one)).repeat(4)
    freedom = np.stack([2 * one, 2 * one + 1, 2 * other, 2 * other + 1], axis=1).ravel()
    entries = (np.concatenate([-direction, direction], axis=1) / length[:, None] ** 0.5).ravel()
    stretch = sparse.csr_array((entries, (bar, freedom)), (len(one), 2 * columns * rows))
    return sparse.csr_array(stretch.T @ stretch)


@known("free truss 30 x 20", "finite differences")
def _():
    return truss(30, 20)


@known("two free trusses 20 x 14", "finite differences")
def _():
    return sparse.block_diag([truss(20, 14), truss(20, 14)])
