"""How exactly float32 numbers are multiplied on GPUs, for a while: fully, or in TF32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from curvscope.errors import InvalidArgument

TF32, EXACT = "tf32", "ieee"
TF32_EPS = 2.0**-10
"""Machine epsilon of TF32, which keeps 10 bits of the mantissa of what it multiplies; sums are float32."""


@contextmanager
def float32_products(*, tf32: bool = False) -> Iterator[None]:
    """Matrix products and convolutions of float32 numbers are exact to float32 while the block runs, or in TF32.

    Autocasting is off. Whatever was set before, under PyTorch's older names or its newer ``fp32_precision``, holds again
    afterwards.

    >>> before = torch.backends.cuda.matmul.fp32_precision
    >>> with float32_products(tf32=True):
    ...     in_tf32()
    True
    >>> in_tf32(), torch.backends.cuda.matmul.fp32_precision == before
    (False, True)
    """
    backends, wanted = torch.backends, TF32 if tf32 else EXACT
    everything, others = backends.fp32_precision, []
    onednn = backends.mkldnn
    try:
        backends.fp32_precision = wanted
        # Those that have a precision of their own do not follow.
        for place in (backends.cudnn, backends.cuda.matmul, backends.cudnn.conv, onednn.matmul, onednn.conv, onednn.rnn):
            if (own := place.fp32_precision) != wanted:
                others.append((place, own))
                place.fp32_precision = wanted
        with ExitStack() as stack:
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        for place, own in reversed(others):
            place.fp32_precision = own
        backends.fp32_precision = everything


def in_tf32() -> bool:
    """Whether matrix products of float32 numbers are in TF32 now, on GPUs that have it."""
    return torch.backends.cuda.matmul.fp32_precision == TF32


def has_tf32(device: torch.device) -> bool:
    """Whether a device multiplies in TF32."""
    return device.type == "cuda" and torch.cuda.is_tf32_supported()


def check_precision(precision: str | None, dtype: torch.dtype, device: torch.device) -> None:
    """Raise InvalidArgument unless numbers of this dtype can be multiplied in this precision there; None: in their own."""
    if precision is None:
        return
    if precision != TF32:
        raise InvalidArgument(f"precision={precision!r}: choose 'tf32', or None; for others dtype=torch.bfloat16 and the like")
    if dtype != torch.float32:
        raise InvalidArgument(f"precision='tf32' multiplies float32 numbers, the dtype is {dtype}: leave one of them out")
    if not has_tf32(device):
        raise InvalidArgument(
            "precision='tf32' needs an NVIDIA GPU of compute capability 8.0 or later (Ampere), the operator is on "
            f"{device}: leave it out"
        )
