"""Intervals over the choice of the data: curvature of a sample beside that of its population."""

from curvscope.sampling._bracket import Limits, bracket, bracket_of_sums
from curvscope.sampling._curve_result import LearningCurve
from curvscope.sampling._deal import operator_of_folds
from curvscope.sampling._end import End, end_of
from curvscope.sampling._estimate import Estimates, close_groups, estimates
from curvscope.sampling._folded import Folded, Pairs
from curvscope.sampling._learning_curve import learning_curve
from curvscope.sampling._population import population
from curvscope.sampling._result import Group, Population
from curvscope.sampling._student import student_quantile
from curvscope.sampling._trace import PopulationTrace, population_trace

__all__ = [
    "End",
    "Estimates",
    "Folded",
    "Group",
    "LearningCurve",
    "Limits",
    "Pairs",
    "Population",
    "PopulationTrace",
    "bracket",
    "bracket_of_sums",
    "close_groups",
    "end_of",
    "estimates",
    "learning_curve",
    "operator_of_folds",
    "population",
    "population_trace",
    "student_quantile",
]
