"""Which strategy, and how many vectors at a time: tried for a moment on the first mini-batch, and remembered."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from curvscope.errors import InvalidArgument
from curvscope.operators.objective import Batch, Objective
from curvscope.operators.products._by_differences import Differences
from curvscope.operators.products._double_backward import DoubleBackward
from curvscope.operators.products._maps import BatchMap
from curvscope.operators.products._memory import is_out_of_memory
from curvscope.operators.products._patience import SECONDS_A_CALL
from curvscope.operators.products._split import Split
from curvscope.operators.products._strategy import Linearized, Strategy
from curvscope.operators.products._survey import CALL_SECONDS, Survey, seconds_of
from curvscope.operators.products.tracing import NotRecordable, Program

log = logging.getLogger(__name__)

STRATEGIES: dict[str, Callable[[BatchMap], Strategy]] = {
    "split": Split,
    "split_vmap": lambda batch_map: Split(batch_map, vectorized=True),
    "linearize": lambda batch_map: Split(batch_map, reuse=False),
    "linearize_vmap": lambda batch_map: Split(batch_map, vectorized=True, reuse=False),
    "double_backward": DoubleBackward,
}
"""Exact ways to compute products, what ``strategy="auto"`` chooses among."""

APPROXIMATE: dict[str, Callable[[BatchMap], Strategy]] = {
    "differences": Differences,
    "extrapolated_differences": lambda batch_map: Differences(batch_map, extrapolated=True),
}
"""Ways that are only ever named."""

KNOWN = STRATEGIES | APPROXIMATE
"""Everything that ``strategy=`` can name, beside "auto"."""

WIDEST = 16
"""Most vectors at a time unless the user says otherwise: wider groups were no faster on a CPU."""

MIN_CALL_SHARE = 0.5
"""Share of the time that calls must take for a trial of wider groups."""

MIN_CALL_SHARE_IN_LONG_WORK = 0.1
"""The same where the products that are to come pay for the trial: less than this would not be missed."""

MAX_TRIAL_COST = 0.25
"""What that trial may cost, of what groups would save if they shared all calls."""

TRIAL_APPLICATIONS = 11
"""What it costs in applications to a group: 2 to 6 to trace, one to compare, one for another mini-batch, 3 to time."""

_remembered: WeakKeyDictionary[nn.Module, dict[Any, Choice]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Choice:
    """A strategy by name, its width, and why.

    Attributes:
        trials: seconds a vector for each candidate that was tried.
        skipped: the reason for each candidate that was not possible, or not worth a trial yet.
        groups_from: number of products to come from which groups are worth a trial; 0: they were tried, or never are.
        provisional: whether nothing was chosen yet: see :class:`.Patience`.
    """

    strategy: str
    width: int
    trials: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    groups_from: int = 0
    provisional: bool = False


def parse_strategy(strategy: str, width: int | None) -> tuple[str, int | None]:
    """The name and the width in a strategy such as ``"split_vmap:8"``, which is how a recorded choice is repeated.

    >>> parse_strategy("split_vmap:8", None)
    ('split_vmap', 8)

    Raises:
        InvalidArgument: not a strategy; a width that is no positive number, or another one than ``width``.
    """
    name, colon, number = strategy.partition(":") if isinstance(strategy, str) else ("", "", "")
    if name != "auto" and name not in KNOWN:
        raise InvalidArgument(f"strategy={strategy!r}: choose 'auto' or one of {', '.join(map(repr, KNOWN))}")
    if width is not None and width < 1:
        raise InvalidArgument(f"width={width}: choose at least 1 vector at a time, or None")
    if not colon:
        return name, width
    if name == "auto" or not number.isdecimal() or int(number) < 1:
        raise InvalidArgument(f"strategy={strategy!r}: write a strategy and its number of vectors, such as 'split_vmap:8'")
    if width not in (None, int(number)):
        raise InvalidArgument(f"strategy={strategy!r} and width={width} disagree: pass one of them")
    return name, int(number)


def remembered(batch_map: BatchMap, columns: int) -> Choice | None:
    """Return what was chosen before for this kind of product of this model, in blocks of about this width."""
    return _remembered.get(batch_map.objective.model, {}).get(_key(batch_map, columns))


def remember(batch_map: BatchMap, columns: int, choice: Choice) -> None:
    """Keep a choice for as long as the model lives."""
    _remembered.setdefault(batch_map.objective.model, {})[_key(batch_map, columns)] = choice


def _key(batch_map: BatchMap, columns: int) -> Any:
    objective = batch_map.objective
    kind, place = type(batch_map).__name__, (objective.arithmetic, str(objective.device))
    return kind, objective.loss_name, place, objective.parameters.names, objective.microbatch, kind_of_block(columns)


def kind_of_block(columns: int) -> int:
    """Blocks of about the same width are computed alike.

    >>> [kind_of_block(columns) for columns in (1, 2, 3, 4, 15, 16, 1000)]
    [1, 2, 2, 3, 4, 5, 5]
    """
    return min(columns, WIDEST).bit_length()


class Trial:
    """Measures candidates on one mini-batch, as far as that is worth its time.

    Args:
        batch_map: what to compute. strategies: instances by name; filled and kept, so that traces are not lost.
        batch, number: the mini-batch. columns: of the block that is wanted. budget: bytes.
        survey: of the first mini-batch.
        to_come: products that were announced; see :func:`curvscope.execution.long_work`.

    Attributes:
        linearized: what was built for the choice, to go on with.
    """

    def __init__(
        self,
        batch_map: BatchMap,
        strategies: dict[str, Strategy],
        batch: Batch,
        number: int,
        columns: int,
        budget: int,
        survey: Survey,
        to_come: int = 0,
    ) -> None:
        self.map, self.strategies, self.batch, self.number = batch_map, strategies, batch, number
        self.columns, self.budget, self.survey, self.to_come = columns, budget, survey, to_come
        self.groups_from = 0
        self.trials: dict[str, float] = {}
        self.skipped: dict[str, str] = {}
        self.linearized: Linearized | None = None

    def choose(self) -> Choice:
        """Groups at once where calls surely take the time; else one vector at a time, or a group if a trial finds it faster.

        The trial is made where calls take half of the time, or a tenth and so many products are to come that it costs less
        than a quarter of what they could save. Where the map cannot be traced: double backward, in groups if those are faster.
        """
        best, width = "split", 1
        if (grouped := self._group_at_once()) is not None:
            best, width = "split_vmap", grouped.width
        elif (alone := self._linearize("split", 1)) is None:
            best, width = self._without_split()
        elif wide := self._width_to_try(alone):
            together = self._linearize("split_vmap", wide)
            if together is not None and self._time("split_vmap", together) < self._time("split", alone):
                best, width, self.linearized = "split_vmap", wide, together
            else:
                self.linearized = alone
        choice = Choice(best, width, self.trials, self.skipped, self.groups_from)
        log.debug("strategy for %d columns: %s", self.columns, choice)
        return choice

    def _group_at_once(self) -> Linearized | None:
        """Linearise for groups without a trial, where the survey says that calls take the time; None: not possible."""
        width = group_width(self.map.objective, self.columns, self.budget, self.survey)
        together = self._linearize("split_vmap", width) if width > 1 else None
        # An operation that PyTorch cannot batch runs once a vector: then a group may share nothing.
        program = getattr(together, "program", None)
        return together if program is not None and program.num_calls < width * self.survey.calls else None

    def _without_split(self) -> tuple[str, int]:
        wide = even(self.columns, 8)
        single = self._linearize("double_backward", 1)
        group = self._linearize("double_backward", wide) if wide > 1 else None
        if single is not None and group is not None:
            alone, together = (self._time("double_backward", linear) for linear in (single, group))
            if together < alone:
                return "double_backward", wide
        return "double_backward", 1

    def _width_to_try(self, alone: Linearized) -> int:
        """Return how many vectors may share calls so that a trial pays; 0: it does not."""
        program = getattr(alone, "program", None)
        if program is None or self.columns == 1:
            return 0
        calls: float = program.num_calls * CALL_SECONDS
        first = getattr(self.strategies["split"], "first_seconds", 0.0)
        # The first application is a slow one: where even that is all arithmetic, a second one need not tell.
        if first and calls <= MIN_CALL_SHARE_IN_LONG_WORK / 4 * first:
            return 0
        minority = self.survey.computes or bool(first and calls <= MIN_CALL_SHARE / 4 * first)
        # Before a vector is timed: it takes at least as long as if calls took half of the time.
        if minority and not self._pays(self._width(program, 8), calls, calls / MIN_CALL_SHARE):
            return 0
        seconds = self._time("split", alone)
        width = self._width(program, WIDEST if calls > seconds else 8)
        if width == 1 or calls < MIN_CALL_SHARE_IN_LONG_WORK * seconds:
            return 0
        most = calls >= MIN_CALL_SHARE * seconds and not self.survey.computes
        return width if most or self._pays(width, calls, seconds) else 0

    def _width(self, program: Program, most: int) -> int:
        """Of a group that fits half of the budget while it is traced and applied."""
        vector = self.map.objective.parameters.size * torch.finfo(self.map.objective.dtype).bits // 8
        each = max(program.peak_bytes, self.survey.group_bytes) + 3 * vector
        return even(self.columns, min(self.budget // 2 // each, most))

    def _pays(self, width: int, calls: float, seconds: float) -> bool:
        """Return whether enough products are to come for a trial; ``seconds`` a vector alone, ``calls`` of them."""
        if width == 1:
            return False
        saved = self.map.objective.num_pieces * calls * (1 - 1 / width)
        cost = SECONDS_A_CALL * self.survey.calls + TRIAL_APPLICATIONS * width * seconds
        least = math.ceil(cost / (MAX_TRIAL_COST * saved))
        if self.to_come >= least:
            return True
        self.groups_from = least
        self.skipped[f"split_vmap, width {width}"] = f"not tried below {least} products, {self.to_come} were announced"
        return False

    def _linearize(self, name: str, width: int) -> Linearized | None:
        """The map of the mini-batch, or None when the strategy cannot be used here."""
        strategy = self.strategies.setdefault(name, STRATEGIES[name](self.map))
        try:
            linear = strategy.linearize(self.batch, self.number, width)
        except (NotRecordable, RuntimeError) as error:
            log.debug("%s, width %d is not possible here: %s", name, width, error)
            self.skipped[f"{name}, width {width}"] = "out of memory" if is_out_of_memory(error) else str(error)
            return None
        self.linearized = linear
        return linear

    def _time(self, name: str, linear: Linearized) -> float:
        """Seconds a vector, the least of three; infinite when it does not work after all."""
        label = f"{name}, width {linear.width}"
        if label not in self.trials and label not in self.skipped:
            objective = self.map.objective
            shape = linear.width, objective.parameters.size
            tangents = torch.randn(shape, dtype=objective.dtype, device=objective.device)
            try:
                self.trials[label] = (
                    min(seconds_of(lambda: linear(tangents), objective.device) for _ in range(3)) / linear.width
                )
            except RuntimeError as error:
                log.debug("%s is not possible here: %s", label, error)
                self.skipped[label] = "out of memory" if is_out_of_memory(error) else str(error)
        return self.trials.get(label, float("inf"))


def group_width(objective: Objective, columns: int, budget: int, survey: Survey) -> int:
    """Return how many vectors surely share calls to their profit, within half of ``budget`` bytes; 1: none."""
    if not survey.shares_calls:
        return 1
    vector = objective.parameters.size * torch.finfo(objective.dtype).bits // 8
    return even(columns, min(WIDEST, budget // 2 // (survey.group_bytes + 3 * vector)))


def even(columns: int, most: int) -> int:
    """The width of groups of at most ``most`` that divides ``columns`` as evenly as can be.

    >>> even(20, 16), even(5, 8), even(9, 8)
    (10, 5, 5)
    """
    return -(-columns // -(-columns // max(1, most)))
