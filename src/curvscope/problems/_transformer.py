"""The causal transformer of the text problems."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Sizes(NamedTuple):
    """Tokens of a window at most, width of the stream, heads of attention, blocks."""

    length: int
    width: int
    heads: int
    layers: int


class Attention(nn.Module):
    """Causal self-attention of several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        batch, length, _ = x.shape
        parts = self.query_key_value(x).chunk(3, dim=-1)
        q, k, v = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in parts)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        y: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, length, -1))
        return y


class Block(nn.Module):
    """Attention and a two-layer network, each on the normalised stream and added to it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_attention, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        x = x + self.attention(self.norm_attention(x))
        y: Tensor = x + self.mlp(self.norm_mlp(x))
        return y


class Transformer(nn.Module):
    """Tokens to the logits of the next: (B, T) int64 to (B, V, T), classes second as ``nn.CrossEntropyLoss`` has them.

    Args:
        vocabulary: V.
        sizes: of the network.

    >>> Transformer(10, Sizes(length=8, width=4, heads=2, layers=1))(torch.zeros(3, 5, dtype=torch.int64)).shape
    torch.Size([3, 10, 5])
    """

    def __init__(self, vocabulary: int, sizes: Sizes) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, sizes.width)
        self.position = nn.Embedding(sizes.length, sizes.width)
        self.blocks = nn.Sequential(*(Block(sizes.width, sizes.heads) for _ in range(sizes.layers)))
        self.norm = nn.LayerNorm(sizes.width)
        self.head = nn.Linear(sizes.width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) to (B, V, T), T up to the length."""
        x = self.embedding(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return logits.movedim(-1, 1)


def small_weights(model: Transformer) -> Transformer:
    """Draw normal weights and embeddings of deviation 0.02 in module order, and set biases to zero; returns the model."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    return model
