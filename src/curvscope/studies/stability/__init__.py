"""Studies of training at the edge of stability, and of eigenvectors along training."""

from curvscope.studies.stability import (
    _edge_of_stability as edge_of_stability,
    _eigenvectors_along_training as eigenvectors_along_training,
)

__all__ = ["edge_of_stability", "eigenvectors_along_training"]
