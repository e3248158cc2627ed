"""Test matrices: pure functions of (kind, seed, role, row, column)."""

from curvscope.sketches.test_matrix import KINDS, TestMatrix

__all__ = ["KINDS", "TestMatrix"]
