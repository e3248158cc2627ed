"""How operations of PyTorch are computed while curvature is measured, where its own derivatives are wrong or missing.

The values stay the same up to rounding. ``mode`` finds the calls, the other files hold the replacements by kind.
"""

from curvscope.operators.rules._casts import Casts, narrower_than
from curvscope.operators.rules._losses import reduced
from curvscope.operators.rules._mode import Rules
from curvscope.operators.rules._reruns import without_reruns
from curvscope.operators.rules._workspace import Argument, workspace_bytes
from curvscope.operators.rules.token_losses import (
    PendingLogits,
    Scores,
    TokenHead,
    drawn_labels,
    logsumexp_of,
    materialized,
    score_map,
    softmax_map,
)

__all__ = [
    "Argument",
    "Casts",
    "PendingLogits",
    "Rules",
    "Scores",
    "TokenHead",
    "drawn_labels",
    "logsumexp_of",
    "materialized",
    "narrower_than",
    "reduced",
    "score_map",
    "softmax_map",
    "without_reruns",
    "workspace_bytes",
]
