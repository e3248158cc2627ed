"""How much memory there is, and whether an error says that there was not enough."""

from __future__ import annotations

import psutil
import torch

from curvscope.errors import InvalidArgument, InvalidType


def available_bytes(device: torch.device) -> int:
    """Free memory of a device, what PyTorch has cached for reuse included."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(psutil.virtual_memory().available)


def memory_budget(memory: int | None, device: torch.device) -> int:
    """Bytes that products may use: the user's bound, else half of what is free.

    >>> memory_budget(1 << 20, torch.device("cpu"))
    1048576
    """
    if memory is None:
        return available_bytes(device) // 2
    if isinstance(memory, bool) or not isinstance(memory, int):
        raise InvalidType(f"memory={memory!r}: pass a number of bytes, such as 8 * 2**30, or None")
    if memory < 1:
        raise InvalidArgument(f"memory={memory}: pass a positive number of bytes, or None for half of what is free")
    return memory


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception of PyTorch or Python means that an allocation failed."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)
