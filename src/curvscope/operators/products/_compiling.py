"""Choice of PyTorch's compiler for tangent programs: asked for, or tried in announced long work and found faster."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument
from curvscope.operators.products._strategy import Linearized, Strategy
from curvscope.operators.products._survey import seconds_of

log = logging.getLogger(__name__)

Mode = bool | Literal["auto"]

TRIED_ON = ("cuda",)
"""Devices on which "auto" tries. On CPUs a program takes 30 to 90 s to compile and is 0.4 to 1.6 times as fast: see
docs/concepts/tracing.md."""

SETUP_SECONDS, SETUP_SECONDS_A_CALL = 30.0, 0.05
"""Estimate of the seconds that compiling a program takes; 27 s were measured on one thread, see docs/concepts/tracing.md."""

SAVED = 0.3
"""Share of a product's time that a compiled program may save; 0.37 at most where it was measured."""

TRIALS = 3


class Compiling:
    """State of one engine: whether its tangent programs are compiled, and why not.

    Args:
        mode: True, False or "auto".

    Attributes:
        is_on: whether programs made from here on are compiled.
        reason: why compiled programs were not taken, or could not be made; "" before that was looked at.
    """

    def __init__(self, mode: Any) -> None:
        if not isinstance(mode, bool) and mode != "auto":
            raise InvalidArgument(f"compile={mode!r}: choose True, False or 'auto'")
        self.mode: Mode = mode
        self.is_on, self.reason = mode is True, ""
        self.tried = mode != "auto"

    def key(self, name: str) -> str:
        """Name of a strategy among those that exist."""
        return f"{name}, compiled" if self.is_on else name

    def may_try(self, device: torch.device, to_come: int) -> bool:
        """Return whether compiled programs are to be looked at, before anything is measured."""
        return not self.tried and device.type in TRIED_ON and to_come > 0

    def choose(
        self, plain: Linearized, tangents: Tensor, num_pieces: int, to_come: int, make: Callable[[], Linearized]
    ) -> None:
        """Take compiled programs if so many products to come pay for making one, and it is faster.

        Args:
            plain: the map of the first mini-batch.
            tangents: a group of vectors for it.
            num_pieces: mini-batches of a product.
            to_come: products that were announced.
            make: gives the same map with a compiled program.
        """
        program = getattr(plain, "program", None)
        if program is None:
            return
        plain(tangents)
        before = self._seconds(plain, tangents)
        setup = SETUP_SECONDS + SETUP_SECONDS_A_CALL * program.num_calls
        needed = setup / (SAVED * before * num_pieces / len(tangents))
        if to_come < needed:
            self.reason = f"not tried below {needed:.0f} products, {to_come} were announced"
            return
        self.tried, compiled = True, make()
        if why := why_not_compiled(compiled):
            self.reason = why
            return
        after = self._seconds(compiled, tangents)
        self.is_on = after < before
        self.reason = "" if self.is_on else f"compiled {after:.3g} s, not compiled {before:.3g} s"
        log.debug("compiled %.3g s, not compiled %.3g s", after, before)

    @staticmethod
    def _seconds(linear: Linearized, tangents: Tensor) -> float:
        """Of one application, the least of three."""
        return min(seconds_of(partial(linear, tangents), tangents.device) for _ in range(TRIALS))

    def note(self, linear: Linearized) -> None:
        """Note why a program that should be compiled is not."""
        if self.is_on and (why := why_not_compiled(linear)):
            self.is_on, self.reason = False, why
            log.warning("programs are not compiled: %s", why)


def why_not_compiled(linear: Linearized) -> str:
    """Return why the program of a map is not compiled; "" where it is, or where there is no program."""
    program = getattr(linear, "program", None)
    return "" if program is None else str(program.not_compiled)


def with_compiler(strategy: Strategy) -> Strategy:
    """The strategy, its programs compiled if it has programs."""
    if hasattr(strategy, "compiled"):
        strategy.compiled = True
    return strategy
