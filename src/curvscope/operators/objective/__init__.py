"""What is differentiated: a loss of the parameters, its mini-batches, and the model's surroundings while it runs."""

from curvscope.operators.objective._batch_loss import Values
from curvscope.operators.objective._batches import (
    ELEMENTWISE,
    Batch,
    as_batches,
    criterion_terms,
    describe,
    few_samples,
    is_pair,
    length,
    move,
    split,
    tensors_of,
)
from curvscope.operators.objective._captured import check_substitution
from curvscope.operators.objective._differences import loss_differences
from curvscope.operators.objective._functions import FunctionObjective, is_function
from curvscope.operators.objective._isolation import BATCH_NORMS, ONE_AT_A_TIME, trains_with_batch_statistics, unwrapped
from curvscope.operators.objective._logits import LogitsObjective
from curvscope.operators.objective._loss_argument import Loss
from curvscope.operators.objective._losses import (
    COUNTED,
    CallWithModel,
    dependent,
    models_own_loss,
    named_criterion,
    takes_model,
)
from curvscope.operators.objective._objective import Objective
from curvscope.operators.objective._options import ObjectiveOptions, SampleOptions, WeightOptions
from curvscope.operators.objective._parts import Part, Unit, Units, units_of

__all__ = [
    "BATCH_NORMS",
    "COUNTED",
    "ELEMENTWISE",
    "ONE_AT_A_TIME",
    "Batch",
    "CallWithModel",
    "FunctionObjective",
    "LogitsObjective",
    "Loss",
    "Objective",
    "ObjectiveOptions",
    "Part",
    "SampleOptions",
    "Unit",
    "Units",
    "Values",
    "WeightOptions",
    "as_batches",
    "check_substitution",
    "criterion_terms",
    "dependent",
    "describe",
    "few_samples",
    "is_function",
    "is_pair",
    "length",
    "loss_differences",
    "models_own_loss",
    "move",
    "named_criterion",
    "split",
    "takes_model",
    "tensors_of",
    "trains_with_batch_statistics",
    "units_of",
    "unwrapped",
]
