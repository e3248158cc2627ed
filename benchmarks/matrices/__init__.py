"""Matrices of known provenance: made by formula, with their spectra; ``MATRICES`` has all of them by name."""

from matrices import classical, graphs, grids, kernels, rectangular, spins
from matrices.base import MATRICES, KnownMatrix

SYMMETRIC = [matrix for matrix in MATRICES.values() if matrix.symmetric]
RECTANGULAR = [matrix for matrix in MATRICES.values() if not matrix.symmetric]

__all__ = [
    "MATRICES",
    "RECTANGULAR",
    "SYMMETRIC",
    "KnownMatrix",
    "classical",
    "graphs",
    "grids",
    "kernels",
    "rectangular",
    "spins",
]
