"""Which GPU: the one there is, and one for every worker."""

from __future__ import annotations

import torch


def visible(number: int, gpus: int, seen: str | None = None) -> str | None:
    """``CUDA_VISIBLE_DEVICES`` of worker ``number`` on a machine with so many GPUs; None: leave it.

    Args:
        number: 0, 1, ...; more workers than GPUs share them in turn.
        gpus: how many GPUs this process sees.
        seen: this process' own ``CUDA_VISIBLE_DEVICES``, whose entries are dealt out.

    >>> [visible(i, 2) for i in range(3)], visible(1, 2, "4,7"), visible(0, 0)
    (['0', '1', '0'], '7', None)
    """
    if not gpus:
        return None
    names = [name.strip() for name in seen.split(",")] if seen else [str(device) for device in range(gpus)]
    return names[number % min(gpus, len(names))]


def preferred() -> torch.device:
    """A GPU if PyTorch sees one, else the CPU; ``CUDA_VISIBLE_DEVICES`` says which, and none if it is empty."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
