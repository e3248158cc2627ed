"""How exactly float32 numbers are multiplied on GPUs, for a while: fully, or in TF32."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from curvscope.errors import InvalidArgument

TF32, EXACT = "tf32", "ieee"
TF32_EPS = 2.0**-10
"""Machine epsilon of TF32, which keeps 10 bits of the mantissa of what it multiplies; sums are float32."""


class _Innermost(threading.local):
    """Precision that the innermost :func:`float32_products` of this thread has set; empty: there is none."""

    precision = ""


_innermost = _Innermost()


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
    backends: Any = torch.backends  # their new names are not annotated
    wanted = TF32 if tf32 else EXACT
    everything, cudnn, onednn = backends.fp32_precision, backends.cudnn, backends.mkldnn
    places = (cudnn, backends.cuda.matmul, cudnn.conv, cudnn.rnn, onednn.matmul, onednn.conv, onednn.rnn)
    before = [place.fp32_precision for place in places]
    if wanted == _innermost.precision and everything == wanted and before == [wanted] * len(places) and not _autocasts():
        # Stages of a solve are nested. Where the outer one has set all and nobody changed it, it also restores all; the rest
        # takes three times as long as these comparisons.
        yield
        return
    others: list[tuple[Any, str]] = []
    older, outer = _older_cudnn_switch(), _innermost.precision
    try:
        backends.fp32_precision = wanted
        # Those that have a precision of their own do not follow.
        for place in places:
            if (own := place.fp32_precision) != wanted:
                others.append((place, own))
                place.fp32_precision = wanted
        with ExitStack() as stack:
            stack.enter_context(_older_cudnn_switch_reads(tf32))
            for kind in _autocasts():
                stack.enter_context(torch.autocast(kind, enabled=False))
            _innermost.precision = wanted
            yield
    finally:
        _innermost.precision = outer
        for place, own in reversed(others):
            place.fp32_precision = own
        backends.fp32_precision = everything
        # torch.backends.cudnn.flags, used inside, leaves what it found: values of ours.
        if older is not None and _older_cudnn_switch() != older:
            cudnn.allow_tf32 = older
        for place, own in zip(places, before, strict=True):
            if place.fp32_precision != own:
                place.fp32_precision = own


def _autocasts() -> list[str]:
    """Return the kinds of devices for which autocasting is on."""
    return [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]


def _older_cudnn_switch() -> bool | None:
    """``torch.backends.cudnn.allow_tf32``; None: precisions were set by the newer names, so that it cannot be read."""
    try:
        return bool(torch.backends.cudnn.allow_tf32)
    except RuntimeError:
        return None


@contextmanager
def _older_cudnn_switch_reads(value: bool) -> Iterator[None]:
    """Inside, ``allow_tf32`` of cuDNN can be read, as ``torch.backends.cudnn.flags`` in a model does.

    PyTorch raises where it differs from the newer names, and setting it would make the newer ones explicit for good.
    """
    switch = vars(type(torch.backends.cudnn)).get("allow_tf32")
    read, wrapped = torch._C._get_cudnn_allow_tf32, getattr(switch, "getter", None)
    try:
        torch._C._get_cudnn_allow_tf32 = lambda: value
        if switch is not None and wrapped is not None:
            switch.getter = torch._C._get_cudnn_allow_tf32
        yield
    finally:
        torch._C._get_cudnn_allow_tf32 = read
        if switch is not None and wrapped is not None:
            switch.getter = wrapped


def in_tf32() -> bool:
    """Return whether matrix products of float32 numbers are in TF32 now, on GPUs that have it."""
    return bool(torch.backends.cuda.matmul.fp32_precision == TF32)


def has_tf32(device: torch.device) -> bool:
    """Return whether a device multiplies in TF32."""
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
