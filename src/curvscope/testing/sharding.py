"""A problem in shards: what a recipe's function looks like that works for the whole and for a part of the data."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["linear"]


def linear(samples: int, shard: int = 0, num_shards: int = 1) -> tuple[nn.Module, nn.Module, list[Any]]:
    """Least squares on ``samples`` rows in three unknowns; shard i has every num_shards-th row from i on."""
    model = nn.Linear(3, 1, bias=False)
    nn.init.ones_(model.weight)
    x = torch.sin(torch.arange(3.0 * samples, device="cpu")).reshape(samples, 3)[shard::num_shards]
    return model, nn.MSELoss(), [(x, torch.zeros(len(x), 1, device="cpu"))]
