"""P^(-1/2) of a preconditioner that was given as a matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.operators._algebra import parameters_of
from curvscope.operators._interop import Dense, as_operator
from curvscope.operators.base import Operator

DENSE_ROWS = 4096
"""Most rows of a dense preconditioner, whose roots are computed from all its eigenpairs."""


def is_matrix(given: Any) -> bool:
    """Return whether a preconditioner was given as a matrix: a diagonal, tensors by name, dense, or an operator."""
    return isinstance(given, Tensor | np.ndarray | Mapping | Operator) or hasattr(given, "__matmul__")


def inverse_root(given: Any, like: Operator) -> Tensor | Operator:
    """Return P^(-1/2), as a vector for a diagonal P.

    Raises:
        InvalidArgument: P has another size, or is not positive definite, or its root cannot be computed.
    """
    size = like.shape[0]
    if isinstance(given, Mapping):
        if not hasattr(like, "parameters"):
            raise InvalidArgument("this operator has no named parameters: pass the diagonal of P as a (D,) tensor")
        given = parameters_of(like).flatten(given)
    if isinstance(given, np.ndarray):
        given = torch.from_numpy(given)
    if isinstance(given, Tensor) and given.ndim == 1:
        if len(given) != size or given.is_complex():
            raise InvalidArgument(f"a diagonal P of {len(given)} entries for D = {size}: pass {size} real numbers")
        if not bool((given > 0).all() & torch.isfinite(given).all()):
            raise InvalidArgument("P has entries that are zero, negative, NaN or infinite: add a small number to its diagonal")
        return given.detach().to(like.device, torch.float64).rsqrt()
    matrix = as_operator(given)
    if matrix.shape != like.shape:
        raise InvalidArgument(f"P is {matrix.shape[0]} x {matrix.shape[1]}, the operator {size} x {size}")
    root = getattr(matrix, "inverse_square_root", None) if not isinstance(matrix, Dense) else None
    if root is not None:
        found: Operator = root()
        return found
    if isinstance(matrix, Dense) and size <= DENSE_ROWS:
        values, vectors = torch.linalg.eigh(matrix.to_dense().double())
        if not float(values[0]) > torch.finfo(torch.float64).eps * size * float(values[-1]):
            raise InvalidArgument(f"P is not positive definite: its smallest eigenvalue is {float(values[0]):.3g}")
        dense = (vectors * values.rsqrt()) @ vectors.T
        return Dense(((dense + dense.T) / 2).to(like.device, like.dtype))
    raise InvalidArgument(
        f"P^(-1/2) of a {type(given).__name__} cannot be computed: pass its diagonal, a dense matrix of up to {DENSE_ROWS} "
        "rows, or an operator with inverse_square_root(), such as solution.low_rank(damping)"
    )
