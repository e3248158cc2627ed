"""Operators whose data are spread over the processes of a ``torch.distributed`` group."""

from curvscope.operators.collective._grouped import Grouped, GroupOptions, grouped
from curvscope.operators.collective._loaders import refuse_a_part, without_padding
from curvscope.operators.collective._parts import Builders, own_part
from curvscope.operators.collective._processes import Processes

__all__ = [
    "Builders",
    "GroupOptions",
    "Grouped",
    "Processes",
    "grouped",
    "own_part",
    "refuse_a_part",
    "without_padding",
]
