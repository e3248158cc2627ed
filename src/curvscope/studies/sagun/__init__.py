"""The studies after Sagun et al. (arXiv 1706.04454), and of gradients in top eigenspaces."""

from curvscope.studies.sagun import (
    _gradient_subspace as gradient_subspace,
    _sagun_batch as sagun_batch,
    _sagun_data as sagun_data,
    _sagun_size as sagun_size,
    _sagun_split as sagun_split,
)
from curvscope.studies.sagun._small import descend, digits, mlp

__all__ = [
    "descend",
    "digits",
    "gradient_subspace",
    "mlp",
    "sagun_batch",
    "sagun_data",
    "sagun_size",
    "sagun_split",
]
