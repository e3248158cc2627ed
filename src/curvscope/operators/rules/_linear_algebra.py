"""Functions of matrices and distances whose derivatives are wrong in PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def cholesky_inverse(input: Tensor, upper: bool = False, *, out: Tensor | None = None) -> Any:
    """``torch.cholesky_inverse`` as the solution of a system: its own forward derivative is wrong (2.14 at least)."""
    if out is not None:
        return NotImplemented
    eye = torch.eye(input.shape[-1], dtype=input.dtype, device=input.device)
    return torch.cholesky_solve(eye.expand(input.shape), input, upper=upper)


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """``functional.pdist`` from differences of rows, for third derivatives, which are NaN otherwise."""
    first, second = torch.triu_indices(len(input), len(input), 1, device=input.device)
    distances: Tensor = torch.linalg.vector_norm(input[first] - input[second], ord=p, dim=-1)
    return distances
