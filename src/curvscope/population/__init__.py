"""What of the curvature is the sample's, and what the population's: intervals over the choice of the data."""

from curvscope.population._bracket import Limits, bracket, bracket_of_sums
from curvscope.population._estimate import Estimates, close_groups, estimates
from curvscope.population._folded import Folded, Pairs

__all__ = [
    "Estimates",
    "Folded",
    "Limits",
    "Pairs",
    "bracket",
    "bracket_of_sums",
    "close_groups",
    "estimates",
]
