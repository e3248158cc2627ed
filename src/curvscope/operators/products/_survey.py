"""What a model is like: how many operations one evaluation of its loss takes, how long, and how much memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from curvscope.operators.objective import Batch, Objective
from curvscope.operators.products.tracing import DispatchMode, tensors_in

MIN_EVALUATION_SECONDS = 0.05
"""Seconds of an evaluation that are believed at once: a shorter one may have waited for other processes."""

MOST_EVALUATIONS = 3

CALL_SECONDS = 2e-5
"""What an operation of a traced program costs beside its arithmetic: 10 to 35 microseconds on the CPUs at hand."""

FLOPS_A_BYTE = 5
"""Floating-point operations that take as long as writing one byte: 50 GFLOP/s beside 10 GB/s on one core."""

SMALL = {"cpu": 2e6}
"""Floating-point operations of an average call, written bytes included, below which vectors should share it.

They take about 40 microseconds on one core, as much as one or two calls. Counted, not timed, so that a busy machine chooses as
an idle one does. The networks of ``benchmarks/products.py`` are far from it: tanh-MLP and LSTM 5e5, GPT 1e7, 3c3d and larger
more than 2e8.
"""

SMALL_ELSEWHERE = 1e8
"""The same on other devices, from their data sheets (10 TFLOP/s, 10 microseconds a kernel); not measured."""


@dataclass(frozen=True)
class Survey:
    """One evaluation of the loss of a mini-batch.

    Attributes:
        calls: operations. seconds: of the evaluation. bytes: of all that they return.
        flops: of matrix products and convolutions. device: its type, as ``"cpu"``.
    """

    calls: int
    seconds: float
    bytes: int
    flops: int
    device: str = "cpu"

    @property
    def shares_calls(self) -> bool:
        """True if calls, not arithmetic, surely take the time."""
        return self.work < SMALL.get(self.device, SMALL_ELSEWHERE) * self.calls

    @property
    def computes(self) -> bool:
        """True if arithmetic surely takes the time."""
        return self.work > 2 * SMALL.get(self.device, SMALL_ELSEWHERE) * self.calls

    @property
    def work(self) -> int:
        """Floating-point operations, written bytes included."""
        return self.flops + FLOPS_A_BYTE * self.bytes

    @property
    def group_bytes(self) -> int:
        """Memory of one vector on its way through a graph or a program, roughly: forward and backward, tangents of both."""
        return 4 * self.bytes


def survey(objective: Objective) -> Survey:
    """Evaluate the loss of the first mini-batch, once where that takes long, else a few times; inside ``isolated()``."""
    batch, _ = next(objective.batches())
    found = _counted(objective, batch)
    seconds = [found.seconds]
    with torch.no_grad():
        while len(seconds) < MOST_EVALUATIONS and min(seconds) < MIN_EVALUATION_SECONDS:
            seconds.append(seconds_of(lambda: _evaluate(objective, batch), objective.device))
    return replace(found, seconds=min(seconds))


def total_work(objective: Objective) -> float:
    """Return the floating-point operations of the loss of all mini-batches, written bytes included.

    Those of the first mini-batch by its share of the loss terms. What a fused kernel computes inside, as that of a recurrent
    layer, is not seen.
    """
    with objective.isolated():
        batch, weight = next(objective.batches())
        return _counted(objective, batch).work / weight


def _counted(objective: Objective, batch: Batch) -> Survey:
    """One evaluation whose operations are counted."""
    counting = _Counting()

    def evaluate() -> None:
        with counting:
            _evaluate(objective, batch)

    with torch.no_grad():
        seconds = seconds_of(evaluate, objective.device)
    return Survey(counting.calls, seconds, counting.bytes, counting.flops, objective.device.type)


def _evaluate(objective: Objective, batch: Batch) -> None:
    objective.seed(0)
    objective.loss_value(objective.values, batch)


class _Counting(DispatchMode):
    """Counts operations, the bytes that they return, and the floating-point operations of products.

    PyTorch's own counter knows more operations, but its first use takes about 4 s.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.bytes = self.flops = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.detach.default:  # of the parameters, before the loss begins; no tangent passes through it
            return result
        self.calls += 1
        self.bytes += sum(tensor.nbytes for tensor in tensors_in(result))
        self.flops += _flops(func, args, result)
        return result


def _flops(func: Callable[..., Any], args: tuple[Any, ...], result: Any) -> int:
    """Floating-point operations of a matrix product or a convolution; 0 for all else."""
    aten = torch.ops.aten
    if func in (aten.mm.default, aten.bmm.default, aten.addmm.default, aten.baddbmm.default):
        first = args[-2]
        return 2 * int(result.numel()) * int(first.shape[-1])
    if func == aten.convolution.default:
        image, weight, transposed = args[0], args[1], args[6]
        return 2 * int((image if transposed else result).numel()) * int(weight[0].numel())
    return 0


def seconds_of(run: Callable[[], Any], device: torch.device) -> float:
    """Wall-clock seconds of one call, work that it left on a GPU included."""
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
