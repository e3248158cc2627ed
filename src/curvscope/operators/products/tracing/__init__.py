"""A linear map traced once, cut in two and simplified: what is done once per mini-batch, and what every vector pays."""

from curvscope.operators.products.tracing._partition import residual_bytes
from curvscope.operators.products.tracing._program import OtherBranch, Program, Traced, trace
from curvscope.operators.products.tracing._recording import DispatchMode, NotRecordable, jvp_warnings_silenced, tensors_in

__all__ = [
    "DispatchMode",
    "NotRecordable",
    "OtherBranch",
    "Program",
    "Traced",
    "jvp_warnings_silenced",
    "residual_bytes",
    "tensors_in",
    "trace",
]
