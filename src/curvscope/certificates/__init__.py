"""How right computed eigenpairs are: pure functions of values, vectors and fresh products."""

from curvscope.certificates._bracket import captured_mass, overlap_bracket
from curvscope.certificates._certificate import Certificate
from curvscope.certificates._ends import EndCertificate
from curvscope.certificates._frobenius import FrobeniusEstimate, Samples, failure_probabilities, probes_needed, sample
from curvscope.certificates._noise import ProductNoise, product_error, product_noise
from curvscope.certificates._refine import refined
from curvscope.certificates._residuals import dilation_residuals, eigenvalue_intervals, residual_norms, residuals_and_shifts
from curvscope.certificates._scree import Scree, scree_bounds
from curvscope.certificates._second_order import RitzSpan
from curvscope.certificates._tail import EndTail, LanczosState, TailNorm, slack, tail_norm
from curvscope.certificates._unseen import Reach, log_least_share, unseen_beyond

__all__ = [
    "Certificate",
    "EndCertificate",
    "EndTail",
    "FrobeniusEstimate",
    "LanczosState",
    "ProductNoise",
    "Reach",
    "RitzSpan",
    "Samples",
    "Scree",
    "TailNorm",
    "captured_mass",
    "dilation_residuals",
    "eigenvalue_intervals",
    "failure_probabilities",
    "log_least_share",
    "overlap_bracket",
    "probes_needed",
    "product_error",
    "product_noise",
    "refined",
    "residual_norms",
    "residuals_and_shifts",
    "sample",
    "scree_bounds",
    "slack",
    "tail_norm",
    "unseen_beyond",
]
