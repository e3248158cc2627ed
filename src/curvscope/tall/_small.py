"""Small matrices that should be Hermitian."""

from __future__ import annotations

from torch import Tensor


def symmetrized(core: Tensor) -> tuple[Tensor, float]:
    """(C + C*)/2, and ||C - C*||_F / ||C||_F (0 when C is 0): how far the core was from Hermitian.

    >>> import torch
    >>> symmetrized(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))[0].tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    return (core + core.mH) / 2, asymmetry(core)


def asymmetry(matrix: Tensor) -> float:
    """||M - M*||_F / ||M||_F, 0 when M is 0."""
    norm = float(matrix.norm())
    return float((matrix - matrix.mH).norm()) / norm if norm else 0.0
