"""Test matrices for an operator."""

from __future__ import annotations

from curvscope.operators.base import Operator
from curvscope.sketches import TestMatrix


def draw(kind: str, operator: Operator, *, seed: int, role: str, rows: int | None = None) -> TestMatrix:
    """A test matrix of the operator's dtype and device; rows: D unless told otherwise."""
    size = operator.shape[1] if rows is None else rows
    return TestMatrix(kind, size, seed=seed, role=role, dtype=operator.dtype, device=operator.device)
