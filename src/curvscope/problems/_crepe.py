"""CREPE: a trained network that tells the pitch of a tone, on harmonic tones made here; nothing is trained or downloaded."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module, resources
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from curvscope.errors import InvalidArgument, MissingExtra
from curvscope.problems._base import EPOCH_SEED_OFFSET, Defaults, Pair, Problem, Split, as_split, seeded

RATE, SAMPLES = 16_000, 1024
"""Samples a second, and in a frame."""
BINS, CENTS_A_BIN, LOWEST_CENTS = 360, 20.0, 1997.3794084376191
"""Pitches that the network knows: 20 cents apart from C1, in cents above 10 Hz."""
BLUR = 25.0
"""Cents: the deviation of the targets around the true pitch."""
HARMONICS, DECAY, QUIETEST = 12, (0.5, 0.95), 20.0
"""Of a tone: their number, the ratio of two neighbours' amplitudes, and decibels of the tone above the noise at least."""
CURVATURE_FRAMES, EVALUATION_FRAMES, FRAMES_A_BATCH = 32, 512, 32
SEEDS = {"train": 0, "test": 1}


class Logits(nn.Module):
    """CREPE up to its logits: frames (B, 1024) to (B, 360)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> Tensor:
        """All of the network but its last sigmoid, which belongs to the loss."""
        model = self.model
        found = model.layer(model.embed(frames), model.conv6, model.conv6_BN)
        logits: Tensor = model.classifier(found.permute(0, 2, 1, 3).flatten(1))
        return logits


class Crepe(Problem):
    """CREPE (Kim et al. 2018) as the package ``torchcrepe`` ships it, trained by its authors, D = 22,239,976.

    The loss is CREPE's own: binary cross-entropy of 360 pitches, 20 cents apart, whose targets are a Gaussian of 25 cents
    around the true one. The tones are made here: up to twelve harmonics with random phases and decay, pitch uniform on the
    scale of cents, and noise; frames of 1,024 samples are normalised as the network expects them.

    Args:
        data: there is no data set to name: None.

    Raises:
        InvalidArgument: data is given. MissingExtra: torchcrepe is not installed (by :meth:`model`).
    """

    name = "crepe"
    capacity: ClassVar[str] = "full"
    description = "CREPE, trained by its authors (D = 22,239,976), on harmonic tones"
    criterion = nn.BCEWithLogitsLoss()
    defaults = Defaults(seed=12345, batch_size=32, learning_rate=0.001, steps=(0,), num_outer=1000, num_inner=2000)
    source = "torchcrepe (MIT licence); Kim, Salamon, Li and Bello 2018, arXiv 1802.06182"
    definition: Mapping[str, str] = {
        "network": "six convolutions with ReLU, BatchNorm and pooling by two, a linear layer to 360 logits",
        "weights": "as torchcrepe ships them; a seed changes nothing",
        "tones": "pitch uniform in cents over the 360 bins, up to 12 harmonics below 8 kHz, amplitudes that decay by a ratio "
        "of 0.5 to 0.95, random phases, white noise 20 to 60 dB below; frames of 1,024 samples at 16 kHz, mean 0, deviation 1",
        "targets": "exp(-d^2 / (2 25^2)), d in cents from each bin to the pitch",
        "BatchNorm": "the running statistics of its training",
        "curvature": "mean binary cross-entropy over 32 tones (train) or 32 others (test), no regulariser",
    }

    def __init__(self, data: str | os.PathLike[str] | None = None) -> None:
        if data is not None:
            raise InvalidArgument(f"data={str(data)!r}: {self.name} makes its tones itself, leave it out")

    def model(self, seed: int | None = None) -> nn.Module:
        """The trained network, up to its logits.

        Raises:
            MissingExtra: torchcrepe is not installed.
        """
        try:
            library = import_module("torchcrepe")
        except ImportError as error:
            raise MissingExtra(f"the problem {self.name} needs its network: pip install torchcrepe ({error})") from error
        with seeded(self.defaults.seed if seed is None else seed):
            model = library.Crepe(self.capacity)
        with resources.as_file(resources.files("torchcrepe") / "assets" / f"{self.capacity}.pth") as file:
            model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        return Logits(model.eval())

    def train_batches(self, seed: int | None = None, start: int = 0) -> Iterator[Pair]:
        """Tones drawn anew for each step."""
        step = start
        while True:
            yield tones(self.defaults.batch_size, (self.defaults.seed if seed is None else seed) + EPOCH_SEED_OFFSET + step)
            step += 1

    def curvature_batches(self, split: Split = "train") -> Sequence[Pair]:
        """32 fixed tones."""
        return self._fixed(CURVATURE_FRAMES, split)

    def evaluation_batches(self, split: Split = "test") -> Sequence[Pair]:
        """512 fixed tones, of which those of the curvature are the first."""
        return self._fixed(EVALUATION_FRAMES, split)

    def _fixed(self, count: int, split: Split) -> Sequence[Pair]:
        batches = range(0, count, FRAMES_A_BATCH)
        return [tones(FRAMES_A_BATCH, self.defaults.seed + 2 * first + SEEDS[as_split(split)]) for first in batches]


class CrepeTiny(Crepe):
    """The smallest network of the family, D = 486,552, likewise trained."""

    name = "crepe_tiny"
    capacity = "tiny"
    description = "the smallest CREPE, trained by its authors (D = 486,552), on harmonic tones"


def tones(count: int, seed: int) -> Pair:
    """Return frames (count, 1024) of tones and their targets (count, 360), the same for the same seed.

    >>> frames, targets = tones(2, seed=0)
    >>> frames.shape, targets.shape, float(targets.max()) > 0.9
    (torch.Size([2, 1024]), torch.Size([2, 360]), True)
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        """Return numbers in [0, 1) for each tone."""
        return torch.rand(count, *shape, generator=generator, dtype=torch.float64, device="cpu")

    cents = LOWEST_CENTS + CENTS_A_BIN * (BINS - 1) * draw(1)
    harmonics = torch.arange(1, HARMONICS + 1, dtype=torch.float64, device="cpu")
    frequencies = hertz(cents) * harmonics
    amplitudes = (DECAY[0] + (DECAY[1] - DECAY[0]) * draw(1)) ** (harmonics - 1) * (frequencies < RATE / 2)
    phases = 2 * math.pi * draw(HARMONICS)
    time = torch.arange(SAMPLES, dtype=torch.float64, device="cpu") / RATE
    waves = torch.sin(2 * math.pi * frequencies[:, :, None] * time + phases[:, :, None])
    clean = (amplitudes[:, :, None] * waves).sum(1)
    quieter = 10 ** (-(QUIETEST + 40 * draw(1)) / 20)
    noise = torch.randn(count, SAMPLES, generator=generator, dtype=torch.float64, device="cpu")
    frames = clean + quieter * clean.std(1, keepdim=True) * noise
    frames = (frames - frames.mean(1, keepdim=True)) / frames.std(1, keepdim=True)
    places = LOWEST_CENTS + CENTS_A_BIN * torch.arange(BINS, dtype=torch.float64, device="cpu")
    targets = torch.exp(-((places - cents) ** 2) / (2 * BLUR**2))
    return frames.float(), targets.float()


def hertz(cents: Tensor) -> Tensor:
    """Return frequencies of pitches in cents above 10 Hz.

    >>> hertz(torch.tensor([1200.0]))
    tensor([20.])
    """
    return 10 * 2 ** (cents / 1200)
