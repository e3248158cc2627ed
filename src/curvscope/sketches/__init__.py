"""Test matrices: pure functions of (kind, seed, role, row, column)."""

from curvscope.sketches.test_matrix import KINDS, TestMatrix, check_kind

__all__ = ["KINDS", "TestMatrix", "check_kind"]
