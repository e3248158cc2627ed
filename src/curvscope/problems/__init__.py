"""Networks and data with pinned definitions."""

from curvscope.problems.base import Defaults, Problem
from curvscope.problems.registry import get, names
from curvscope.problems.spectrum import spectrum

__all__ = ["Defaults", "Problem", "get", "names", "spectrum"]
