"""Masks, overlaps: comparing subspaces of the parameter space."""

from curvscope.subspaces import masks
from curvscope.subspaces.masks import Ranking
from curvscope.subspaces.overlap import OverlapCurve, overlap

__all__ = ["OverlapCurve", "Ranking", "masks", "overlap"]
