"""Studies of training at the edge of stability, and of eigenvectors along training."""

from curvscope.studies.stability import _edge_of_stability as edge_of_stability

__all__ = ["edge_of_stability"]
