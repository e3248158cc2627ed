"""When to trace: not before products have taken as long without it as tracing will, unless long work is announced."""

from __future__ import annotations

import logging
import sys

import torch

from curvscope.operators.objective import Objective
from curvscope.operators.products._survey import Survey, survey
from curvscope.system import is_long_work

log = logging.getLogger(__name__)

SECONDS_A_CALL = 2e-3
"""What tracing takes for each operation of a forward pass, beside arithmetic: 1.9 to 3.4 ms in the benchmark."""

GRADIENTS, MORE_GRADIENTS = 6, 4
"""What a trace computes in gradients of a mini-batch, and what comparing it on a second mini-batch does."""

LOADING_SECONDS = 1.5
"""What PyTorch's rules for forward derivatives take to load, once a process."""


class Patience:
    """Rule for when to trace (ski rental: tracing starts once untraced products have cost as much).

    Until then products go by double backward, which needs no preparation. So preparing never costs more than what was spent
    on products already, or than this very block saves.

    Attributes:
        spent: seconds of products that went by double backward since something was traced last.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.spent = 0.0
        self._survey: Survey | None = None

    @property
    def survey(self) -> Survey:
        """Of the first mini-batch; evaluated when it is asked for."""
        if self._survey is None:
            self._survey = survey(self.objective)
            log.debug("%s", self._survey)
        return self._survey

    def waits(self, columns: int) -> bool:
        """Return whether a block of so many columns is better computed without tracing."""
        if is_long_work() or torch.are_deterministic_algorithms_enabled():
            return False
        gradient, pieces = 3 * self.survey.seconds, self.objective.num_pieces
        saved = columns * pieces * gradient * (0.5 if self.survey.shares_calls else 1.0)
        return self.spent + saved < self._setup(gradient, pieces)

    def _setup(self, gradient: float, pieces: int) -> float:
        """Seconds that tracing takes, as far as can be told."""
        loading = 0.0 if "torch._decomp.decompositions_for_jvp" in sys.modules else LOADING_SECONDS
        computed = GRADIENTS + (MORE_GRADIENTS if pieces > 1 else 0)
        return loading + SECONDS_A_CALL * self.survey.calls + computed * gradient
