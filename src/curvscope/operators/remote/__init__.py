"""Operators that other processes can make again: recipes, targets, shards, and what a worker does."""

from curvscope.operators.remote._recipe import Recipe
from curvscope.operators.remote._sharded import data_parallel
from curvscope.operators.remote._target import call_target, load_function, load_target, place_of
from curvscope.operators.remote._worker import Order, multiply, order_for, product, received

__all__ = [
    "Order",
    "Recipe",
    "call_target",
    "data_parallel",
    "load_function",
    "load_target",
    "multiply",
    "order_for",
    "place_of",
    "product",
    "received",
]
