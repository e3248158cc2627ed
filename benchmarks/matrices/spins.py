"""Hamiltonians of rings of spins 1/2: ground states with copies, both ends wanted."""

import numpy as np
import scipy.sparse as sparse

from matrices.base import known

PLUS = sparse.csr_array([[0.0, 1.0], [0.0, 0.0]])
Z = sparse.csr_array(np.diag([0.5, -0.5]))


def at(operators: dict[int, sparse.sparray], size: int) -> sparse.csr_array:
    """Product of single-spin operators at the named places."""
    total = sparse.eye_array(1)
    for place in range(size):
        total = sparse.kron(total, operators.get(place, sparse.eye_array(2)))
    return sparse.csr_array(total)


def ring(size: int, *, flip: float, along: float, field: float = 0.0, second: float = 0.0, periodic: bool = True):
    """Sum over neighbours of flip (S+S- + S-S+) / 2 + along SzSz, over second neighbours of both, and field Sx."""
    total = sparse.csr_array((2**size, 2**size))
    bonds = [(1, 1.0)] + ([(2, second)] if second else [])
    for jump, strength in bonds:
        for i in range(size if periodic else size - jump):
            j = (i + jump) % size
            exchange = at({i: PLUS, j: PLUS.T}, size)
            total = total + strength * (flip / 2 * (exchange + exchange.T) + along * at({i: Z, j: Z}, size))
    if field:
        for i in range(size):
            total = total + field / 2 * at({i: PLUS + PLUS.T}, size)
    return total


@known("Heisenberg ring 10", "spins")
def _():
    return ring(10, flip=1.0, along=1.0)


@known("Heisenberg ring 11", "spins")
def _():
    return ring(11, flip=1.0, along=1.0)


@known("Heisenberg chain 11", "spins")
def _():
    return ring(11, flip=1.0, along=1.0, periodic=False)


@known("ferromagnetic ring 10", "spins")
def _():
    return ring(10, flip=-1.0, along=-1.0)


@known("XX ring 10", "spins")
def _():
    return ring(10, flip=1.0, along=0.0)


@known("XXZ ring 11", "spins")
def _():
    return ring(11, flip=1.0, along=2.0)


@known("Majumdar-Ghosh ring 10", "spins")
def _():
    return ring(10, flip=1.0, along=1.0, second=0.5)


@known("Ising ring 11 in a transverse field", "spins")
def _():
    return ring(11, flip=0.0, along=-4.0, field=-2.0)


@known("Ising ring 10 in a weak field", "spins")
def _():
    return ring(10, flip=0.0, along=-4.0, field=-0.4)
