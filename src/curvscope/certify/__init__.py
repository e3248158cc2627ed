"""How right computed eigenpairs are: pure functions of values, vectors and fresh products."""

from curvscope.certify.bracket import captured_mass, overlap_bracket
from curvscope.certify.certificate import Certificate
from curvscope.certify.ends import EndCertificate
from curvscope.certify.frobenius import (
    FrobeniusEstimate,
    Samples,
    failure_probabilities,
    probes_needed,
    sample,
)
from curvscope.certify.noise import ProductNoise, product_error, product_noise
from curvscope.certify.refine import refined
from curvscope.certify.residuals import dilation_residuals, eigenvalue_intervals, residual_norms, residuals_and_shifts
from curvscope.certify.scree import Scree, scree_bounds
from curvscope.certify.second_order import RitzSpan
from curvscope.certify.tail import EndTail, LanczosState, TailNorm, tail_norm

__all__ = [
    "Certificate",
    "EndCertificate",
    "EndTail",
    "FrobeniusEstimate",
    "LanczosState",
    "ProductNoise",
    "RitzSpan",
    "Samples",
    "Scree",
    "TailNorm",
    "captured_mass",
    "dilation_residuals",
    "eigenvalue_intervals",
    "failure_probabilities",
    "overlap_bracket",
    "probes_needed",
    "product_error",
    "product_noise",
    "refined",
    "residual_norms",
    "residuals_and_shifts",
    "sample",
    "scree_bounds",
    "tail_norm",
]
