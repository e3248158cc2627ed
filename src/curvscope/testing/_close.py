"""Comparisons whose failure tells what was compared."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def require(holds: bool, claim: str) -> None:
    """Raise AssertionError with the claim unless it holds."""
    if not holds:
        raise AssertionError(f"violated: {claim}")


def require_close(one: Tensor, other: Tensor, allowed: float, claim: str) -> None:
    """Raise AssertionError unless the largest difference is at most ``allowed``."""
    require(one.shape == other.shape, f"{claim} (shapes {tuple(one.shape)} and {tuple(other.shape)})")
    gap = float((one - other).abs().max()) if one.numel() else 0.0
    require(gap <= allowed, f"{claim} (differs by {gap:.1e}, allowed {allowed:.1e})")


def random(rows: int, columns: int, dtype: torch.dtype, device: torch.device, seed: int = 0) -> Tensor:
    """A Gaussian block that does not touch the global random state."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=dtype, device="cpu").to(device)


def raises(kind: type[BaseException], action: Callable[[], object]) -> bool:
    """Return whether calling ``action`` raises an error of this kind."""
    try:
        action()
    except kind:
        return True
    return False
