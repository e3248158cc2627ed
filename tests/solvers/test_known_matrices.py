"""A part of ``benchmarks/known_matrices.py``: no false claim on small members of its families."""

import importlib
import sys
from pathlib import Path

import pytest

pytest.importorskip("scipy")


@pytest.fixture(scope="module")
def known():
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    yield importlib.import_module("known_matrices")
    sys.path.remove(folder)


PART = [
    ("hypercube 10 Laplacian", 5, "SA"),
    ("barbell 500, 20", 2, "SA"),
    ("Majumdar-Ghosh ring 10", 5, "SA"),
    ("sample covariance 200 of 1200", 20, "LM"),
]


@pytest.mark.parametrize(("name", "k", "which"), PART)
def test_no_claim_is_false(known, name, k, which):
    row = known.eigenpairs(known.MATRICES[name], k, which, 1e-3)
    assert row["status"] == "converged", row["text"]
    assert not row["false"], row
    assert not row["false certificate"], row
    known.MATRICES[name].release()


def test_every_matrix_is_what_it_says(known):
    assert len(known.MATRICES) >= 60
    for name in ("path 2000", "Poisson 27^3", "Paley 1009", "Hadamard 1024"):
        matrix = known.MATRICES[name]
        trace = float(matrix.matrix.diagonal().sum())
        assert abs(matrix.eigenvalues.sum() - trace) < 1e-6 * max(1.0, abs(matrix.eigenvalues).sum())
        squares = float((matrix.matrix * matrix.matrix).sum())
        assert abs((matrix.eigenvalues**2).sum() - squares) < 1e-8 * squares
        matrix.release()
