"""Which strategy, and how many vectors at a time: tried for a moment on the first mini-batch, and remembered."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from curvscope.errors import InvalidArgument
from curvscope.operators.objective import Batch
from curvscope.operators.products.double_backward import DoubleBackward
from curvscope.operators.products.maps import BatchMap
from curvscope.operators.products.memory import is_out_of_memory
from curvscope.operators.products.split import Split
from curvscope.operators.products.strategy import Strategy
from curvscope.operators.products.tracing.recording import NotRecordable

log = logging.getLogger(__name__)

STRATEGIES: dict[str, Callable[[BatchMap], Strategy]] = {
    "split": Split,
    "split_vmap": lambda batch_map: Split(batch_map, vectorized=True),
    "linearize": lambda batch_map: Split(batch_map, reuse=False),
    "linearize_vmap": lambda batch_map: Split(batch_map, vectorized=True, reuse=False),
    "double_backward": DoubleBackward,
}
"""Everything that ``strategy=`` can name, beside "auto"."""

WIDEST = 32
"""Most vectors at a time unless the user says otherwise: wider groups were never faster on a CPU."""

CALL_SECONDS = 1e-5
"""What an operation costs beside its arithmetic, roughly; only decides whether a trial of wider groups is worth it."""

_remembered: WeakKeyDictionary[nn.Module, dict[Any, Choice]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Choice:
    """A strategy by name, its width, and why.

    Attributes:
        trials: seconds a vector for each candidate that was tried.
        skipped: the reason for each candidate that was not possible.
    """

    strategy: str
    width: int
    trials: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def check_strategy(strategy: str) -> str:
    """The name itself.

    Raises:
        InvalidArgument: not a strategy.
    """
    if strategy != "auto" and strategy not in STRATEGIES:
        raise InvalidArgument(f"strategy={strategy!r}: choose 'auto' or one of {', '.join(map(repr, STRATEGIES))}")
    return strategy


def remembered(batch_map: BatchMap, columns: int) -> Choice | None:
    """What was chosen before for this kind of product of this model, in blocks of about this width."""
    return _remembered.get(batch_map.objective.model, {}).get(_key(batch_map, columns))


def remember(batch_map: BatchMap, columns: int, choice: Choice) -> None:
    """Keep a choice for as long as the model lives."""
    _remembered.setdefault(batch_map.objective.model, {})[_key(batch_map, columns)] = choice


def _key(batch_map: BatchMap, columns: int) -> Any:
    objective = batch_map.objective
    kind, place = type(batch_map).__name__, (objective.dtype, str(objective.device))
    return kind, objective.loss_name, place, objective.parameters.names, objective.microbatch, min(columns, WIDEST).bit_length()


class Trial:
    """Measures candidates on one mini-batch.

    Args:
        batch_map: what to compute. strategies: instances by name; filled and kept, so that traces are not lost.
        batch, number: the mini-batch. columns: of the block that is wanted. budget: bytes.
    """

    def __init__(
        self, batch_map: BatchMap, strategies: dict[str, Strategy], batch: Batch, number: int, columns: int, budget: int
    ) -> None:
        self.map, self.strategies, self.batch, self.number = batch_map, strategies, batch, number
        self.columns, self.budget = columns, budget
        self.trials: dict[str, float] = {}
        self.skipped: dict[str, str] = {}
        self._calls, self._peak = 0, 0

    def choose(self) -> Choice:
        """Try one vector at a time; wider groups only where calls, not arithmetic, take the time and memory allows."""
        best, width = "split", 1
        least = self._time("split", 1)
        if least is None:
            best, width = self._without_split()
        else:
            for wide in self._widths_worth_trying(least):
                together = self._time("split_vmap", wide)
                if together is not None and together < least:
                    best, width, least = "split_vmap", wide, together
        choice = Choice(best, width, self.trials, self.skipped)
        log.debug("strategy for %d columns: %s", self.columns, choice)
        return choice

    def _without_split(self) -> tuple[str, int]:
        wide = min(self.columns, 8)
        if wide > 1:
            alone, together = self._time("double_backward", 1), self._time("double_backward", wide)
            if alone is not None and together is not None and together < alone:
                return "double_backward", wide
        return "double_backward", 1

    def _widths_worth_trying(self, seconds: float) -> list[int]:
        overhead = self._calls * CALL_SECONDS / seconds
        if overhead < 0.25 or self.columns == 1:
            return []
        vector = self.map.objective.parameters.size * torch.finfo(self.map.objective.dtype).bits // 8
        fitting = max(1, self.budget // 2 // max(1, self._peak + 3 * vector))
        widths = (8, WIDEST) if overhead > 1 else (8,)
        return sorted({min(self.columns, wide, fitting) for wide in widths} - {1})

    def _time(self, name: str, width: int) -> float | None:
        """Seconds a vector, or None when the strategy cannot be used here."""
        strategy = self.strategies.setdefault(name, STRATEGIES[name](self.map))
        label = f"{name}, width {width}"
        objective = self.map.objective
        tangents = torch.randn(width, objective.parameters.size, dtype=objective.dtype, device=objective.device)
        try:
            linear = strategy.linearize(self.batch, self.number, width)
            seconds = min(self._clock(lambda: linear(tangents)) for _ in range(3)) / width
        except (NotRecordable, RuntimeError) as error:
            log.debug("%s is not possible here: %s", label, error)
            self.skipped[label] = "out of memory" if is_out_of_memory(error) else str(error)
            return None
        program = getattr(linear, "program", None)
        if program is not None and width == 1:
            self._calls, self._peak = program.num_calls, program.peak_bytes
        self.trials[label] = seconds
        return seconds

    def _clock(self, run: Callable[[], Any]) -> float:
        device = self.map.objective.device
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start
