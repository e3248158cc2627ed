"""Experiments: thin compositions of the library; configuration in, results and figures out."""

from curvscope.studies import _demo as demo
from curvscope.studies._compare import compare_studies
from curvscope.studies._registry import STUDIES, get_study

__all__ = [
    "STUDIES",
    "compare_studies",
    "demo",
    "get_study",
]
