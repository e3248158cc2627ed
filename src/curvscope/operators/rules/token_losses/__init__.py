"""Cross-entropy over a large vocabulary, with the linear layer before it, in chunks of tokens."""

from curvscope.operators.rules.token_losses._chunks import Head as TokenHead, chunk_entries
from curvscope.operators.rules.token_losses._curvature import Scores, drawn_labels
from curvscope.operators.rules.token_losses._functions import logsumexp_of, score_map, softmax_map
from curvscope.operators.rules.token_losses._pending import RULES, PendingLogits, materialized

__all__ = [
    "RULES",
    "PendingLogits",
    "Scores",
    "TokenHead",
    "chunk_entries",
    "drawn_labels",
    "logsumexp_of",
    "materialized",
    "score_map",
    "softmax_map",
]
