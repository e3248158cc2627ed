"""What a model is like: how many operations one evaluation of its loss takes, how long, and how much memory."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from curvscope.operators.objective import Objective
from curvscope.operators.products.tracing import DispatchMode, tensors_in

LONG_ENOUGH = 0.05
"""Seconds of an evaluation that are believed at once: a shorter one may have waited for other processes."""

MOST_EVALUATIONS = 3

CALL_SECONDS = 1e-5
"""What an operation of a traced program costs beside its arithmetic on a fast CPU; see :func:`call_seconds`."""

ADDITIONS_A_CALL = 8
"""The same in additions of two numbers.

On a slow CPU with one thread such an addition took 4 microseconds, and an operation of the tanh-MLP's program 30 to 36 more
than in a group of 16 (``python benchmarks/products.py --only tanh-MLP --threads 1``).
"""

SHARED = 2.5
"""Calls an operation takes in time, arithmetic included, below which vectors should share it."""


@dataclass(frozen=True)
class Survey:
    """One evaluation of the loss of a mini-batch.

    Attributes:
        calls: operations. seconds: of the evaluation. bytes: of all that they return.
        call_seconds: what an operation costs beside its arithmetic.
    """

    calls: int
    seconds: float
    bytes: int
    call_seconds: float = CALL_SECONDS

    @property
    def shares_calls(self) -> bool:
        """True if calls, not arithmetic, surely take the time."""
        return self.seconds < SHARED * self.call_seconds * self.calls

    @property
    def computes(self) -> bool:
        """True if arithmetic surely takes the time."""
        return self.seconds > 2 * SHARED * self.call_seconds * self.calls

    @property
    def group_bytes(self) -> int:
        """Memory of one vector on its way through a graph or a program, roughly: forward and backward, tangents of both."""
        return 4 * self.bytes


def survey(objective: Objective) -> Survey:
    """Evaluate the loss of the first mini-batch, once where that takes long, else a few times; inside ``isolated()``."""
    batch, _ = next(objective.batches())

    def evaluate() -> None:
        """One evaluation."""
        objective.seed(0)
        objective.loss_value(objective.values, batch)

    def counted() -> None:
        """One evaluation whose operations are counted."""
        with counting:
            evaluate()

    counting = _Counting()
    with torch.no_grad():
        seconds = [seconds_of(counted, objective.device)]
        while len(seconds) < MOST_EVALUATIONS and min(seconds) < LONG_ENOUGH:
            seconds.append(seconds_of(evaluate, objective.device))
    return Survey(counting.calls, min(seconds), counting.bytes, call_seconds())


@functools.cache
def call_seconds() -> float:
    """Seconds that an operation costs on this machine beside its arithmetic, between 10 and 100 microseconds.

    Cost: 400 additions of two numbers, once a process. The least of 20 means is taken, and bounds hold in any case: another
    process in the way cannot make it wrong by more.
    """
    number = torch.ones((), device="cpu")

    def additions() -> None:
        """Additions whose arithmetic is nothing."""
        for _ in range(20):
            number.add(number)

    seconds = min(seconds_of(additions, number.device) for _ in range(20)) / 20
    return min(max(ADDITIONS_A_CALL * seconds, CALL_SECONDS), 10 * CALL_SECONDS)


class _Counting(DispatchMode):
    """Counts operations and the bytes that they return."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.bytes = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.detach.default:  # of the parameters, before the loss begins; no tangent passes through it
            return result
        self.calls += 1
        self.bytes += sum(tensor.nbytes for tensor in tensors_in(result))
        return result


def seconds_of(run: Callable[[], Any], device: torch.device) -> float:
    """Wall-clock seconds of one call, work that it left on a GPU included."""
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
