"""A small causal transformer on characters: what a language model's curvature looks like, in minutes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from curvscope.problems._base import Defaults, Pair, Problem, Split, seeded
from curvscope.problems._text import Windows, read_text
from curvscope.problems._transformer import Sizes, Transformer, small_weights

CHARACTERS = "\n" + "".join(chr(i) for i in range(32, 127))
LENGTH, WIDTH, HEADS, LAYERS = 64, 64, 4, 2
CURVATURE_WINDOWS, EVALUATION_BATCH = 16, 32


class TinyGpt(Problem):
    """A transformer with 2 blocks, 4 heads and 64 channels, character by character, D = 116,480, plain SGD.

    Its loss terms are tokens: 16 windows of 64 characters are 1,024 of them.

    Args:
        data: a UTF-8 file or a folder with ``*.txt``; None: the packaged sonnets. Characters outside of printable ASCII and
            the line end are read as "?".
    """

    name = "tinygpt"
    description = "causal transformer (D = 116,480) on characters of Shakespeare's sonnets, or any text, SGD"
    criterion = nn.CrossEntropyLoss()
    defaults = Defaults(
        seed=12345, batch_size=16, learning_rate=0.3, steps=(0, 100, 1000), num_outer=1000, num_inner=2000, threads=1
    )
    source = "this library"
    initial_top = "4d6d55a30d8accce649e72acc09c30e73ee4b3d03d90acaea5fbe866abff5808"
    definition: Mapping[str, str] = {
        "network": "embeddings of 96 characters and 64 places; 2 blocks of causal attention (4 heads) and a GELU network "
        "(64-256-64), LayerNorm before each; LayerNorm; linear head without bias, not tied",
        "initialisation": "seed 12345; normal weights and embeddings of deviation 0.02, in module order after PyTorch's own; "
        "zero biases, LayerNorm 1 and 0",
        "training": "SGD 0.3, 16 windows of 64 characters anywhere in the first nine tenths of the text (those of step s drawn "
        "with seed 12345 + 4933327 + s), no momentum, decay or schedule",
        "BatchNorm": "none",
        "dropout": "none",
        "curvature": "mean cross-entropy over the tokens of 16 windows that lie evenly in the first nine tenths of the text "
        "(train) or the rest (test), no regulariser",
    }

    def __init__(self, data: str | os.PathLike[str] | None = None) -> None:
        code = {character: number for number, character in enumerate(CHARACTERS)}
        tokens = torch.tensor([code.get(character, code["?"]) for character in read_text(data)], device="cpu")
        self.windows = Windows(tokens, LENGTH)

    def model(self, seed: int | None = None) -> nn.Module:
        """Normal weights of deviation 0.02, zero biases."""
        with seeded(self.defaults.seed if seed is None else seed):
            return small_weights(Transformer(len(CHARACTERS), Sizes(LENGTH, WIDTH, HEADS, LAYERS)))

    def train_batches(self, seed: int | None = None, start: int = 0) -> Iterator[Pair]:
        """Windows drawn anew for each step."""
        return self.windows.random(self.defaults.batch_size, self.defaults.seed if seed is None else seed, start)

    def curvature_batches(self, split: Split = "train") -> list[Pair]:
        """16 windows (what a short text has of them) in one batch."""
        return [self.windows.even(split, CURVATURE_WINDOWS)]

    def evaluation_batches(self, split: Split = "test") -> list[Pair]:
        """All windows of the split that do not overlap."""
        x, y = self.windows.even(split)
        return list(zip(x.split(EVALUATION_BATCH), y.split(EVALUATION_BATCH), strict=True))
