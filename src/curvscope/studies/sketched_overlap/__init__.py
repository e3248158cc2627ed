"""The studies of the paper on parameter magnitudes and Hessian eigenspaces (TMLR 2025; arXiv 2504.14701)."""

from curvscope.studies.sketched_overlap import (
    _grassmann_metrics as grassmann_metrics,
    _mnist16_crystallization as mnist16_crystallization,
    _mnist16_overlap as mnist16_overlap,
    _mnist16_proxies as mnist16_proxies,
    _overlap_at_scale as overlap_at_scale,
    _runtimes as runtimes,
)
from curvscope.studies.sketched_overlap._stage_times import FEWEST, stage_times

__all__ = [
    "FEWEST",
    "grassmann_metrics",
    "mnist16_crystallization",
    "mnist16_overlap",
    "mnist16_proxies",
    "overlap_at_scale",
    "runtimes",
    "stage_times",
]
