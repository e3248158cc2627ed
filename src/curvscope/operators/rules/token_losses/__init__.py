"""Cross-entropy over a large vocabulary, with the linear layer before it, in chunks of tokens."""

from curvscope.operators.rules.token_losses._chunks import chunk_entries
from curvscope.operators.rules.token_losses._pending import RULES, materialized

__all__ = ["RULES", "chunk_entries", "materialized"]
