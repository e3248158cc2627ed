"""Networks and data with pinned definitions."""

from curvscope.problems._base import Defaults, Pair, Problem, Split, as_split
from curvscope.problems._digits import PACKAGED, full, lowest_of_each_class
from curvscope.problems._imagenet_resnet18 import initial_statistics
from curvscope.problems._pinned import as_pinned, compare_with_reference
from curvscope.problems._registry import get, names
from curvscope.problems._spectrum import spectrum

__all__ = [
    "PACKAGED",
    "Defaults",
    "Pair",
    "Problem",
    "Split",
    "as_pinned",
    "as_split",
    "compare_with_reference",
    "full",
    "get",
    "initial_statistics",
    "lowest_of_each_class",
    "names",
    "spectrum",
]
