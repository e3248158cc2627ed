"""Graphs: adjacency matrices and Laplacians, many with copies of eigenvalues, small gaps or null spaces."""

import numpy as np
import scipy.sparse as sparse

from matrices.base import circulant_adjacency, from_edges, known, kronecker_sum, laplacian, sums, tridiagonal


def path_values(size: int) -> np.ndarray:
    """Laplacian eigenvalues of a path."""
    return 2 - 2 * np.cos(np.pi * np.arange(size) / size)


def cycle_values(size: int) -> np.ndarray:
    """Laplacian eigenvalues of a cycle."""
    return 2 - 2 * np.cos(2 * np.pi * np.arange(size) / size)


def path(size: int) -> sparse.csr_array:
    """Adjacency of a path."""
    return tridiagonal(np.zeros(size), np.ones(size - 1))


@known("path 2000", "graph", lambda: path_values(2000))
def _():
    return laplacian(path(2000))


@known("cycle 3001", "graph", lambda: cycle_values(3001))
def _():
    return laplacian(circulant_adjacency(3001, 1))


@known("torus 40 x 40", "graph", lambda: sums(cycle_values(40), cycle_values(40)))
def _():
    ring = laplacian(circulant_adjacency(40, 1))
    return kronecker_sum(ring, ring)


@known("torus 41 x 41 adjacency", "graph", lambda: 4 - sums(cycle_values(41), cycle_values(41)))
def _():
    ring = circulant_adjacency(41, 1)
    return kronecker_sum(ring, ring)


@known("torus 27 x 27 x 27", "graph", lambda: sums(cycle_values(27), cycle_values(27), cycle_values(27)))
def _():
    ring = laplacian(circulant_adjacency(27, 1))
    return kronecker_sum(ring, ring, ring)


@known("hypercube 11 adjacency", "graph", lambda: sums(*[np.array([1.0, -1.0])] * 11))
def _():
    return kronecker_sum(*[sparse.csr_array([[0.0, 1.0], [1.0, 0.0]])] * 11)


@known("hypercube 10 Laplacian", "graph", lambda: sums(*[np.array([0.0, 2.0])] * 10))
def _():
    return kronecker_sum(*[sparse.csr_array([[1.0, -1.0], [-1.0, 1.0]])] * 10)


@known("Hamming H(3, 11)", "graph", lambda: sums(*[np.r_[10.0, -np.ones(10)]] * 3))
def _():
    complete = sparse.csr_array(np.ones((11, 11)) - np.eye(11))
    return kronecker_sum(complete, complete, complete)


@known("complete bipartite 600, 900", "graph", lambda: np.r_[-np.sqrt(540_000.0), np.zeros(1498), np.sqrt(540_000.0)])
def _():
    return sparse.csr_array(sparse.block_array([[None, np.ones((600, 900))], [np.ones((900, 600)), None]]))


@known("star 1500 Laplacian", "graph", lambda: np.r_[0.0, np.ones(1498), 1500.0])
def _():
    return laplacian(from_edges(1500, np.stack([np.zeros(1499, int), np.arange(1, 1500)], axis=1)))


@known("wheel 1500 Laplacian", "graph")
def _():
    rim = np.arange(1, 1500)
    hub = np.stack([np.zeros(1499, int), rim], axis=1)
    return laplacian(from_edges(1500, np.concatenate([hub, np.stack([rim, np.r_[rim[1:], 1]], axis=1)])))


def barbell(clique: int, bridge: int, *, both: bool = True) -> sparse.csr_array:
    """Adjacency of two cliques joined by a path, or of one with a tail."""
    first = np.stack(np.triu_indices(clique, 1), axis=1)
    line = np.arange(clique - 1, clique + bridge + (1 if both else 0))
    size = clique + bridge + (clique if both else 0)
    edges = [first, np.stack([line[:-1], line[1:]], axis=1)]
    if both:
        edges.append(first + clique + bridge)
    return from_edges(size, np.concatenate(edges))


@known("barbell 500, 20", "graph")
def _():
    return laplacian(barbell(500, 20))


@known("barbell 800, 20", "graph")
def _():
    return laplacian(barbell(800, 20))


@known("lollipop 300, 900", "graph")
def _():
    return laplacian(barbell(300, 900, both=False))


@known("ladder 2 x 800", "graph", lambda: sums(path_values(800), np.array([0.0, 2.0])))
def _():
    return kronecker_sum(laplacian(path(800)), sparse.csr_array([[1.0, -1.0], [-1.0, 1.0]]))


@known("circulant 1500 (1, 2, 5)", "graph")
def _():
    return circulant_adjacency(1500, 1, 2, 5)


@known("Moebius ladder 1600", "graph")
def _():
    half = np.stack([np.arange(800), np.arange(800) + 800], axis=1)
    return laplacian(circulant_adjacency(1600, 1) + from_edges(1600, half))


@known("binary tree 11 levels", "graph")
def _():
    child = np.arange(1, 2**11 - 1)
    return laplacian(from_edges(2**11 - 1, np.stack([(child - 1) // 2, child], axis=1)))


@known("Paley 1009", "graph", lambda: np.r_[504.0, np.repeat([(-1 + 1009**0.5) / 2, (-1 - 1009**0.5) / 2], 504)])
def _():
    squares = np.zeros(1009)
    squares[np.arange(1, 1009) ** 2 % 1009] = 1
    index = np.arange(1009)
    return squares[(index[:, None] - index) % 1009]


@known("ring of 60 cliques of 20", "graph")
def _():
    clique = np.stack(np.triu_indices(20, 1), axis=1)
    start = 20 * np.arange(60)
    inside = np.concatenate([clique + first for first in start])
    across = np.stack([start + 19, np.roll(start, -1)], axis=1)
    return laplacian(from_edges(1200, np.concatenate([inside, across])))


@known("three separate cycles", "graph", lambda: np.concatenate([cycle_values(n) for n in (400, 500, 600)]))
def _():
    return laplacian(sparse.csr_array(sparse.block_diag([circulant_adjacency(n, 1) for n in (400, 500, 600)])))


@known("Petersen x path 120", "graph")
def _():
    outer = np.array([[i, (i + 1) % 5] for i in range(5)])
    spokes, inner = np.array([[i, i + 5] for i in range(5)]), np.array([[5 + i, 5 + (i + 2) % 5] for i in range(5)])
    petersen = from_edges(10, np.concatenate([outer, spokes, inner]))
    return kronecker_sum(laplacian(petersen), laplacian(path(120)))


@known("cycle 1600 with golden chords", "graph")
def _():
    first = np.arange(0, 1600, 8)
    chords = np.stack([first, (first + 2 + np.floor(1500 * (0.6180339887 * first % 1)).astype(int)) % 1600], axis=1)
    adjacency = circulant_adjacency(1600, 1) + from_edges(1600, chords)
    return laplacian(sparse.csr_array((adjacency != 0).astype(float)))


@known("normalised Laplacian of a 1-D Kleinberg graph", "graph")
def _():
    adjacency = circulant_adjacency(1500, 1, 3, 11, 47, 211)
    degrees = np.asarray(adjacency.sum(axis=1)).ravel() ** -0.5
    return sparse.csr_array(sparse.eye_array(1500) - degrees[:, None] * adjacency * degrees)
