"""Solutions with certificates: bounds for what was found and for what was not."""

from curvscope.solvers.certification._bracketed import check_ranking, until_bracketed
from curvscope.solvers.certification._certify import certify, is_finer, product_rounding, rounding_of
from curvscope.solvers.certification._posterior import ROLE, posterior_error, scree

__all__ = [
    "ROLE",
    "certify",
    "check_ranking",
    "is_finer",
    "posterior_error",
    "product_rounding",
    "rounding_of",
    "scree",
    "until_bracketed",
]
