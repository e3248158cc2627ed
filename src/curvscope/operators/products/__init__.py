"""Exact products of sums over mini-batches with blocks of vectors, as fast as the model allows."""

from curvscope.operators.products._by_differences import BY_DIFFERENCES
from curvscope.operators.products._choice import STRATEGIES
from curvscope.operators.products._engine import Engine
from curvscope.operators.products._forward_losses import ForwardModeLosses
from curvscope.operators.products._loss_hessian import CLOSED_FORMS, loss_hessian, loss_slope
from curvscope.operators.products._maps import BatchMap, HessianMap, SandwichMap
from curvscope.operators.products._memory import available_bytes
from curvscope.operators.products._outputs import FlatOutputs
from curvscope.operators.products._refusals import explained
from curvscope.operators.products._survey import seconds_of, total_work
from curvscope.operators.products._token_curvature import TokenDraws, TokenHessian, TokenScores, token_curvature
from curvscope.operators.products._verification import REMEDY, ROUNDING, UNDECIDED, Verdict, against_differences

__all__ = [
    "BY_DIFFERENCES",
    "CLOSED_FORMS",
    "REMEDY",
    "ROUNDING",
    "STRATEGIES",
    "UNDECIDED",
    "BatchMap",
    "Engine",
    "FlatOutputs",
    "ForwardModeLosses",
    "HessianMap",
    "SandwichMap",
    "TokenDraws",
    "TokenHessian",
    "TokenScores",
    "Verdict",
    "against_differences",
    "available_bytes",
    "explained",
    "loss_hessian",
    "loss_slope",
    "seconds_of",
    "token_curvature",
    "total_work",
]
