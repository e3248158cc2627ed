"""PyTorch's own layers with attention: they call it by a name inside ``torch.nn.functional``, where a mode does not look."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

from curvscope.operators.rules._reruns import replaced
from curvscope.operators.rules.attention import is_worth_tiles, scaled_dot_product_attention

AS_PYTORCH = functional.scaled_dot_product_attention


def multi_head_attention_forward(
    query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int, *args: Any, **kwargs: Any
) -> Any:
    """``functional.multi_head_attention_forward`` with attention on tiles; NotImplemented for short sequences."""
    if not is_worth_tiles(query.shape[0], key.shape[0], query.shape[1:-1].numel() * num_heads):
        return NotImplemented
    with replaced(functional, "scaled_dot_product_attention", _attention):
        return functional.multi_head_attention_forward(query, key, value, embed_dim_to_check, num_heads, *args, **kwargs)


def _attention(*args: Any, **kwargs: Any) -> Any:
    found = scaled_dot_product_attention(*args, **kwargs)
    return AS_PYTORCH(*args, **kwargs) if found is NotImplemented else found
