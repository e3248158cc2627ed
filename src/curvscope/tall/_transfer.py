"""Panels on their way from the host to where they are multiplied: pinned, and copied while the one before is in use."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor


def _new_reader() -> None:
    global _reader
    _reader = ThreadPoolExecutor(1, thread_name_prefix="curvscope-panels")


_reader: ThreadPoolExecutor
_new_reader()
if hasattr(os, "register_at_fork"):
    # A forked child has none of its parent's threads: the parent's pool would take its tasks and never begin them.
    os.register_at_fork(after_in_child=_new_reader)


class Sent(NamedTuple):
    """A panel that is on its way: the tensor it becomes, and what to wait for before it is used; None: it is there."""

    panel: Tensor
    ready: torch.cuda.Event | None


def buffer(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Room on the host for a (rows, columns) panel, its columns contiguous, that ``device`` copies from without waiting.

    Pinned for GPUs; PyTorch keeps such memory and hands it out again once the copies from it are done.
    """
    return torch.empty(columns, rows, dtype=dtype, pin_memory=device.type == "cuda", device="cpu").T


def send(panel: Tensor, device: torch.device) -> Sent:
    """Begin to copy a panel from the host, on a stream of its own; on the CPU it is there already."""
    if device.type != "cuda":
        return Sent(panel.to(device), None)
    with torch.cuda.stream(_stream(device)) as _:
        moved = panel.to(device, non_blocking=True)
        return Sent(moved, torch.cuda.current_stream(device).record_event())


def arrived(sent: Sent) -> Tensor:
    """The panel, for work on the current stream, which waits for it where it must."""
    if sent.ready is not None:
        present = torch.cuda.current_stream(sent.panel.device)
        present.wait_event(sent.ready)
        sent.panel.record_stream(present)
    return sent.panel


def begin(load: Callable[[int], Tensor], number: int, device: torch.device) -> Future[Sent]:
    """Load a panel and send it, in a thread of its own."""
    return _reader.submit(lambda: send(load(number), device))


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
