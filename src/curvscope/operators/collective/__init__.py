"""Operators whose data are spread over the processes of a ``torch.distributed`` group."""

from curvscope.operators.collective._grouped import Grouped, GroupOptions, grouped
from curvscope.operators.collective._loaders import refuse_a_part, without_padding
from curvscope.operators.collective._processes import Processes

__all__ = ["GroupOptions", "Grouped", "Processes", "grouped", "refuse_a_part", "without_padding"]
