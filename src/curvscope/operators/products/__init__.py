"""Exact products of sums over mini-batches with blocks of vectors, as fast as the model allows."""

from curvscope.operators.products.choice import STRATEGIES
from curvscope.operators.products.engine import Engine
from curvscope.operators.products.loss_hessian import CLOSED_FORMS, loss_hessian
from curvscope.operators.products.maps import BatchMap, HessianMap, SandwichMap
from curvscope.operators.products.outputs import FlatOutputs

__all__ = ["CLOSED_FORMS", "STRATEGIES", "BatchMap", "Engine", "FlatOutputs", "HessianMap", "SandwichMap", "loss_hessian"]
