"""How right computed eigenpairs are: pure functions of values, vectors and fresh products."""

from curvscope.certify.bracket import overlap_bracket
from curvscope.certify.certificate import Certificate
from curvscope.certify.noise import ProductNoise, product_noise
from curvscope.certify.residuals import eigenvalue_intervals, residual_norms
from curvscope.certify.tail import TailNorm, tail_norm

__all__ = [
    "Certificate",
    "ProductNoise",
    "TailNorm",
    "eigenvalue_intervals",
    "overlap_bracket",
    "product_noise",
    "residual_norms",
    "tail_norm",
]
