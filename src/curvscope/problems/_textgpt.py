"""A causal transformer of ten million parameters on the bytes of a large text that is already there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import nn

from curvscope.problems._base import Defaults, Pair, Problem, Split, seeded
from curvscope.problems._text import Windows, read_sources, read_text
from curvscope.problems._transformer import Sizes, Transformer, small_weights

BYTES = 256
EVALUATION_BATCH = 16
PACKAGE = "sympy"
"""PyTorch depends on it, so it is there: 16 MB of Python with mathematics in its comments (1.14.0)."""


class TextGpt(Problem):
    """A transformer with 6 blocks, 6 heads and 384 channels on bytes, D = 10,942,464, plain SGD.

    ``curvscope train --problem textgpt --out DIR`` trains it; ``--checkpoint DIR/step_003000.safetensors`` measures it there.
    Its loss terms are tokens: 8 windows of 256 bytes are 2,048 of them.

    Args:
        data: a UTF-8 file or a folder with ``*.txt``, at least 26 kB; None: the Python sources of the SymPy that is installed,
            without its tests, in the order of their paths. So the text, and the matrices, depend on SymPy's version.
    """

    name = "textgpt"
    description = "causal transformer (D = 10,942,464) on the bytes of SymPy's sources (16 MB), or of any text, SGD"
    criterion = nn.CrossEntropyLoss()
    defaults = Defaults(seed=12345, batch_size=16, learning_rate=0.03, steps=(0, 300, 3000), num_outer=1000, num_inner=2000)
    source = "this library"
    initial_top = "5f40406f16bef1f53c45e201403231a4a1f070781f9831040c3bafb77cec2b4f"
    definition: Mapping[str, str] = {
        "network": "embeddings of 256 bytes and 256 places; 6 blocks of causal attention (6 heads) and a GELU network "
        "(384-1536-384), LayerNorm before each; LayerNorm; linear head without bias, not tied",
        "initialisation": "seed 12345; normal weights and embeddings of deviation 0.02, in module order after PyTorch's own; "
        "zero biases, LayerNorm 1 and 0",
        "training": "Python sources of the installed SymPy without tests and benchmarks, by path (16,141,585 bytes in "
        "1.14.0); SGD 0.03, 16 windows of 256 bytes anywhere in the first nine tenths of the text (those of step s drawn "
        "with seed 12345 + 4933327 + s), no momentum, decay or schedule",
        "BatchNorm": "none",
        "dropout": "none",
        "curvature": "mean cross-entropy over the tokens of 8 windows that lie evenly in the first nine tenths of the text "
        "(train) or the rest (test), no regulariser",
    }
    sizes: ClassVar[Sizes] = Sizes(length=256, width=384, heads=6, layers=6)
    curvature_windows: ClassVar[int] = 8
    evaluation_windows: ClassVar[int] = 256

    def __init__(self, data: str | os.PathLike[str] | None = None) -> None:
        text = read_sources(PACKAGE) if data is None else read_text(data).encode()
        # One byte a token: as int64 the text would take 130 MB.
        tokens = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        self.windows = Windows(tokens, self.sizes.length)

    def model(self, seed: int | None = None) -> nn.Module:
        """Normal weights of deviation 0.02, zero biases."""
        with seeded(self.defaults.seed if seed is None else seed):
            return small_weights(Transformer(BYTES, self.sizes))

    def train_batches(self, seed: int | None = None, start: int = 0) -> Iterator[Pair]:
        """Windows drawn anew for each step."""
        return self.windows.random(self.defaults.batch_size, self.defaults.seed if seed is None else seed, start)

    def curvature_batches(self, split: Split = "train") -> list[Pair]:
        """8 windows in one batch."""
        return [self.windows.even(split, self.curvature_windows)]

    def evaluation_batches(self, split: Split = "test") -> list[Pair]:
        """256 windows that lie evenly in the split: all of it would take an hour."""
        x, y = self.windows.even(split, self.evaluation_windows)
        return list(zip(x.split(EVALUATION_BATCH), y.split(EVALUATION_BATCH), strict=True))
