"""What of the curvature is the sample's, and what the population's: intervals over the choice of the data."""

from curvscope.sampling._bracket import Limits, bracket, bracket_of_sums
from curvscope.sampling._deal import operator_of_folds
from curvscope.sampling._end import End, end_of
from curvscope.sampling._estimate import Estimates, close_groups, estimates
from curvscope.sampling._folded import Folded, Pairs
from curvscope.sampling._population import population
from curvscope.sampling._result import Group, Population

__all__ = [
    "End",
    "Estimates",
    "Folded",
    "Group",
    "Limits",
    "Pairs",
    "Population",
    "bracket",
    "bracket_of_sums",
    "close_groups",
    "end_of",
    "estimates",
    "operator_of_folds",
    "population",
]
