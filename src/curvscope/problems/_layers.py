"""Layers as TensorFlow pads them: "same" for an even size and stride 2 adds on the right and at the bottom only."""

from __future__ import annotations

from torch import Tensor, nn


class PoolSame(nn.Module):
    """Max pooling 3 x 3 with stride 2 whose zero padding is TensorFlow's: on the right and at the bottom only."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) with even H and W to (N, C, H / 2, W / 2)."""
        return nn.functional.max_pool2d(nn.functional.pad(x, (0, 1, 0, 1)), 3, stride=2)


class HalvingConv(nn.Conv2d):
    """Convolution 3 x 3 with stride 2 whose zero padding is TensorFlow's, as for :class:`PoolSame`."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) with even H and W to (N, C', H / 2, W / 2)."""
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


class MeanOverPlaces(nn.Module):
    """The mean of each channel over the places of an image."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C)."""
        return x.mean(dim=(2, 3))
