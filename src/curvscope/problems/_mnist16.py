"""The paper's small problem: a tanh network with 7,030 parameters on 16 x 16 MNIST."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import pairwise

import torch
from torch import nn

from curvscope.problems._base import Defaults, Pair, Problem, Split, as_split, seeded, shuffled_batches
from curvscope.problems._digits import full, lowest_of_each_class, packaged

WIDTHS = (256, 20, 20, 20, 20, 20, 10)
CURVATURE_SAMPLES_PER_CLASS = 50


class Mnist16(Problem):
    """16 x 16 MNIST: 256 - 5 x [20, tanh] - 10, D = 7,030, plain SGD.

    With ``data`` (the full set) it is the paper's run to rounding. With the packaged part the recipe is the same on 8,500
    training and 1,500 validation images; the curvature samples are the very same 500 + 500 images.

    Args:
        data: directory with ``MNIST/raw``; None: the packaged part.
    """

    name = "mnist16"
    description = "tanh network 256-20-20-20-20-20-10 (D = 7,030) on 16 x 16 MNIST, SGD"
    criterion = nn.CrossEntropyLoss()
    defaults = Defaults(
        seed=12345, batch_size=500, learning_rate=0.3, steps=(0, 100, 1000), num_outer=355, num_inner=710, threads=1
    )
    source = "Fernandez et al., TMLR 2025 (arXiv 2504.14701), section 6.1, and its published logs"
    initial_top = "0f109ca15c05e602549d8693f8063198b7ad9755c07d5e765a409304c375a233"
    definition: Mapping[str, str] = {
        "network": "256-20-20-20-20-20-10, tanh",
        "initialisation": "seed 12345; PyTorch's own for linear layers, drawn twice, in module order",
        "training": "SGD 0.3, batches of 500, no momentum, decay, schedule or augmentation; 10,000 validation images left out "
        "(torch.randperm, seed 12345), epoch e reshuffled with seed 12345 + 4933327 + e",
        "BatchNorm": "none",
        "dropout": "none",
        "curvature": "mean cross-entropy on 500 train or test images, the 50 lowest indices of each digit, no regulariser",
    }

    def __init__(self, data: str | os.PathLike[str] | None = None) -> None:
        self.digits = packaged() if data is None else full(data)

    def model(self, seed: int | None = None) -> nn.Module:
        """PyTorch's default initialisation of linear layers, drawn a second time in module order, as the paper's code did."""
        with seeded(self.defaults.seed if seed is None else seed):
            layers: list[nn.Module] = [nn.Flatten()]
            for i, (wide, narrow) in enumerate(pairwise(WIDTHS)):
                layers += [nn.Linear(wide, narrow)] + ([nn.Tanh()] if i < len(WIDTHS) - 2 else [])
            model = nn.Sequential(*layers)
            for module in model:
                if isinstance(module, nn.Linear):
                    nn.init.kaiming_uniform_(module.weight, a=5**0.5)
                    bound = module.in_features**-0.5
                    nn.init.uniform_(module.bias, -bound, bound)
        return model

    @property
    def steps_per_epoch(self) -> int:
        """100 on the full set, 17 on the packaged part."""
        return (len(self.digits.train_labels) - self._held_out) // self.defaults.batch_size

    @property
    def _held_out(self) -> int:
        return 10_000 if self.digits.complete else 1_500

    def train_batches(self, seed: int | None = None, start: int = 0) -> Iterator[Pair]:
        """Epoch after epoch, reshuffled; the validation images are left out."""
        seed = self.defaults.seed if seed is None else seed
        x, y = self.digits.split("train")
        members = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed), device="cpu")[self._held_out :]
        for chosen in shuffled_batches(members, self.defaults.batch_size, seed, start):
            yield x[chosen], y[chosen]

    def curvature_batches(self, split: Split = "train") -> list[Pair]:
        """One batch of 500 samples: the 50 lowest indices of each digit, validation images among them (as published)."""
        as_split(split)
        x, y = self.digits.split(split)
        chosen = lowest_of_each_class(y, CURVATURE_SAMPLES_PER_CLASS)
        return [(x[chosen], y[chosen])]

    def evaluation_batches(self, split: Split = "test") -> list[Pair]:
        """All images of the split in batches of 1,000."""
        as_split(split)
        x, y = self.digits.split(split)
        return list(zip(x.split(1000), y.split(1000), strict=True))
