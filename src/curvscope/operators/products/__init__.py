"""Exact products of sums over mini-batches with blocks of vectors, as fast as the model allows."""

from curvscope.operators.products.choice import STRATEGIES
from curvscope.operators.products.engine import Engine
from curvscope.operators.products.loss_hessian import loss_hessian
from curvscope.operators.products.maps import BatchMap, HessianMap, SandwichMap

__all__ = ["STRATEGIES", "BatchMap", "Engine", "HessianMap", "SandwichMap", "loss_hessian"]
