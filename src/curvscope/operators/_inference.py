"""Curvature under ``torch.inference_mode``, where nothing could be differentiated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def out_of_inference() -> Iterator[None]:
    """Inside, ``torch.inference_mode`` is as ``torch.no_grad``: where gradients are wanted they can be switched on."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield
