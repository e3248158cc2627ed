"""The kinds of subspaces there are to compare: spans of columns, rankings, fixed masks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, InvalidType
from curvscope.operators import Operator
from curvscope.solvers import Solution
from curvscope.subspaces._ranking import Mask, Ranking
from curvscope.tall import InMemory, TallMatrix, orthogonality

Basis = Solution | TallMatrix | Tensor
"""Orthonormal columns (D, K), in descending order of importance: those of a solution, in memory or stored, or a tensor."""

Subspace = Basis | Ranking | Mask

LARGEST_DEFECT = 1e-3
MOST_CHECKED = 1e11
"""Operations up to which V'V is formed without being asked."""


def columns(basis: Basis, *, check: bool | None = False) -> TallMatrix:
    """The columns of a basis.

    Args:
        basis: see :data:`Basis`.
        check: whether V'V = I is measured, at 2 D K^2 operations; None: unless it takes more than 1e11 of them, or a solver
            made and measured the vectors itself.

    Raises:
        InvalidType: something else. InvalidArgument: columns that are not orthonormal, or none.
    """
    match basis:
        case Solution():
            vectors, check = basis.eigenvectors, bool(check)
        case TallMatrix():
            vectors = basis
        case np.ndarray():
            return columns(torch.from_numpy(np.ascontiguousarray(basis)), check=check)
        case Tensor():
            vectors = InMemory(basis if basis.ndim == 2 else basis.reshape(len(basis), -1))
        case _:
            raise InvalidType(f"cannot compare a {type(basis).__name__}: {_instead_of(basis)}")
    rows, width = vectors.shape
    if not 1 <= width <= rows:
        raise InvalidArgument(f"the columns have shape {rows} x {width}: pass (D, K) with 1 <= K <= D")
    if check is None:
        check = 2.0 * rows * width**2 <= MOST_CHECKED
    if check and not (defect := orthogonality(vectors)) <= LARGEST_DEFECT:  # NaN is refused too
        raise InvalidArgument(
            f"the columns are not orthonormal, max |V'V - I| = {defect:.1e}: pass "
            "torch.linalg.qr(V).Q where columns are meant, a vector (D,) of booleans or of scores where a mask is, "
            "cs.gradient_fraction(g, solution) for a gradient"
        )
    return vectors


def _instead_of(obj: object) -> str:
    """Return what to pass for something that is no basis."""
    if hasattr(obj, "named_parameters"):
        return "cs.masks.by_magnitude(model) ranks its parameters, cs.masks.from_pruned(model) has what pruning kept"
    if isinstance(obj, Operator):
        return "find its eigenvectors first, cs.eigsh(H, k=...)"
    if isinstance(obj, str):
        return "cs.masks.by_magnitude(model), cs.masks.random(model) and the like make masks"
    return "pass a Solution, or orthonormal columns as a tensor (D, K)"


def spectral_defect(basis: Basis) -> float:
    """A bound for ||V'V - I||_2: measured, or for a large solution K times the largest entry that its solver measured."""
    vectors = columns(basis)
    rows, width = vectors.shape
    known = basis.diagnostics.get("orthogonality") if isinstance(basis, Solution) else None
    if known is not None and 2.0 * rows * width**2 > MOST_CHECKED:
        return width * known
    return orthogonality(vectors, spectral=True)
