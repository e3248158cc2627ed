"""How right computed eigenpairs are: pure functions of values, vectors and fresh products."""

from curvscope.certify.frobenius import (
    FrobeniusEstimate,
    Samples,
    failure_probabilities,
    probes_needed,
    sample,
)
from curvscope.certify.residuals import dilation_residuals, eigenvalue_intervals, residual_norms
from curvscope.certify.scree import Scree, scree_bounds

__all__ = [
    "FrobeniusEstimate",
    "Samples",
    "Scree",
    "dilation_residuals",
    "eigenvalue_intervals",
    "failure_probabilities",
    "probes_needed",
    "residual_norms",
    "sample",
    "scree_bounds",
]
