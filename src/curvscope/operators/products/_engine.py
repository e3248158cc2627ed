"""Products of a block with a sum over mini-batches: batches outside, vectors inside, within a memory budget."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from curvscope.errors import InvalidArgument, OutOfBudget, UnverifiedDerivatives
from curvscope.operators.objective import ONE_AT_A_TIME, Batch, check_substitution, length
from curvscope.operators.products._by_differences import BY_DIFFERENCES, Calibration, calibrate
from curvscope.operators.products._choice import (
    KNOWN,
    Choice,
    Trial,
    even,
    group_width,
    kind_of_block,
    parse_strategy,
    remember,
    remembered,
)
from curvscope.operators.products._compiling import Compiling, with_compiler
from curvscope.operators.products._kept import Kept
from curvscope.operators.products._maps import BatchMap
from curvscope.operators.products._memory import is_out_of_memory, memory_budget
from curvscope.operators.products._patience import Patience
from curvscope.operators.products._routes import not_finite
from curvscope.operators.products._strategy import Linearized, Strategy
from curvscope.operators.products._sums import add_pieces, is_finite
from curvscope.operators.products._survey import seconds_of
from curvscope.operators.products._verification import Verdict, verify
from curvscope.operators.products.tracing import NotRecordable, jvp_warnings_silenced
from curvscope.system import products_to_come

log = logging.getLogger(__name__)

FALLBACKS = {
    "split": "linearize",
    "split_vmap": "linearize_vmap",
    "linearize": "double_backward",
    "linearize_vmap": "double_backward",
}
"""Where to go on when a strategy turns out not to fit the model."""

DEFAULT_WIDTH = 8


class Engine:
    """Applies sum_b w_b M_b to blocks, M_b a :class:`.BatchMap` of mini-batch b.

    Args:
        batch_map: M_b.
        strategy: "auto" or a name in :data:`.choice.KNOWN`, with its width after a colon or not.
        width: vectors at a time for vectorised strategies; None: chosen.
        memory: bytes that products may use; None: half of what is free when they start.
        accumulate: dtype of sums over mini-batches and of the results.
        compile: whether traced programs go through PyTorch's compiler, see :class:`.Compiling`.

    Cost: see the strategies. With "auto" products go by double backward until they have taken as long as tracing will, see
    :class:`.Patience`; then one of them also traces and tries. What was traced, and the residuals of as many mini-batches as
    fit half of the budget, is kept for the next products.
    """

    def __init__(
        self,
        batch_map: BatchMap,
        *,
        strategy: str,
        width: int | None,
        memory: int | None,
        accumulate: torch.dtype,
        compile: bool | str = "auto",
    ) -> None:
        self.map = batch_map
        self.strategy, self.width = parse_strategy(strategy, width)
        self.memory, self.accumulate = memory, accumulate
        self.budget = memory_budget(memory, batch_map.objective.device)
        self._strategies: dict[str, Strategy] = {}
        self._kept = Kept()
        self._patience = Patience(batch_map.objective)
        self._settled: set[int] = set()
        self._choice: Choice | None = None
        self._fixed: Choice | None = None
        self._replaced: dict[str, str] = {}
        self._narrowed: dict[str, int] = {}
        self._verdict: Verdict | None = None
        self._derivatives = ""
        self._costs: dict[int, float] = {}
        self._compiling = Compiling(compile)

    def view(self, memory: int | None) -> Engine:
        """Return an engine for one solve: traced programs and kept linearisations are shared, everything chosen is its own.

        So the operator chooses for its later products as if there had been no solve, and they have the same bits.
        """
        made = copy.copy(self)
        made.memory = memory
        made._patience = copy.copy(self._patience)
        made._settled, made._compiling = set(self._settled), copy.copy(self._compiling)
        made._replaced, made._narrowed = dict(self._replaced), dict(self._narrowed)
        return made

    def forget(self) -> None:
        """Forget the linearisations, which are of other parameters than those that the map has now; programs stay."""
        self._kept.forget()

    def apply(self, block: Tensor) -> Tensor:
        """(D, b) to (D, b).

        Raises:
            OutOfBudget: not even one vector fits. NotFinite: a product is NaN or infinite though the block is not.
        """
        with ONE_AT_A_TIME:  # what is chosen and kept is no one thread's
            return self._apply(block)

    def _apply(self, block: Tensor) -> Tensor:
        objective = self.map.objective
        tangents = block.T.to(objective.dtype).contiguous()
        # Not zeroed: the first mini-batch writes, later ones add.
        total = torch.empty(tangents.shape, dtype=self.accumulate, device=tangents.device)
        if tangents.shape[0] == 0:
            return total.T
        if not self._replayed(total, tangents):
            if not self._kept.complete:
                self._look_at_memory()
            waits = self._verified(tangents.shape[0])
            with objective.isolated(), jvp_warnings_silenced():
                if not (waits and self._provisional(total, tangents)):
                    self._choice = self._chosen(tangents.shape[0])
                    self._consider_compiling(tangents)
                    self._sum_of_batches(total, tangents)
        if not is_finite(total) and is_finite(block):
            raise not_finite(objective)
        return total.T

    @property
    def report(self) -> dict[str, Any]:
        """Choice of the strategy and its reason, for provenance. Empty before the first product."""
        if self._choice is None:  # what a view of this one has verified holds here, too
            verdict = self._verdict or self.map.verdict
            return {"derivatives": verdict.summary} if verdict is not None else {}
        return {
            "strategy": self._effective(self._choice.strategy),
            "width": self._width(self._choice),
            "choice": f"{self._effective(self._choice.strategy)}:{self._width(self._choice)}",
            "requested": self.strategy,
            "provisional": self._choice.provisional,
            "compiled": self._compiling.is_on and not self._choice.provisional,
            "not_compiled": self._compiling.reason,
            "arithmetic": self.map.objective.arithmetic,
            "seconds_per_vector": dict(self._choice.trials),
            "skipped": dict(self._choice.skipped),
            "kept_batches": len(self._kept.items),
            "kept_bytes": self._kept.bytes,
            "budget_bytes": self.budget,
            "derivatives": self._derivatives,
            "verdict": asdict(self._verdict) if self._verdict is not None else None,
            **({"calibration": asdict(self.map.calibration)} if self.by_differences and self.map.calibration else {}),
        }

    # --- what it costs ----------------------------------------------------------------------------------------------------

    def predicted_bytes(self, columns: int) -> int:
        """Most memory that a product with a (D, columns) block takes beside the block and its result's reader."""
        objective = self.map.objective
        with objective.isolated(), jvp_warnings_silenced():
            number, batch, _, name, width = self._first_group(columns)
            building, kept, applying = self._strategy(name).footprint(batch, number, width)
        size, entry = objective.parameters.size, torch.empty((), dtype=objective.dtype, device="cpu").element_size()
        total = torch.empty((), dtype=self.accumulate, device="cpu").element_size()
        block = columns * size * (total + (entry if columns > 1 or entry != total else 0))
        others = min(objective.num_pieces - 1, self.budget // 2 // max(1, kept)) if name != "double_backward" else 0
        return block + others * kept + max(building, kept + applying)

    def cost_curve(self, widths: Sequence[int]) -> dict[int, float]:
        """Measured seconds a vector for blocks of each width: two applications on the first mini-batch, scaled to all."""
        objective = self.map.objective
        with objective.isolated(), jvp_warnings_silenced():
            for columns in widths:
                if columns not in self._costs:
                    number, batch, weight, _, _ = self._first_group(columns)
                    tangents = torch.randn(columns, objective.parameters.size, dtype=objective.dtype, device=objective.device)
                    total = torch.empty_like(tangents, dtype=self.accumulate)
                    self._add(total, tangents, number, batch, weight)
                    seconds = seconds_of(partial(self._add, total, tangents, number, batch, weight), objective.device)
                    self._costs[columns] = seconds / columns / (1 / objective.num_pieces if objective.sums else weight)
                    if not self._repeats:
                        self._kept.forget()
        return {columns: self._costs[columns] for columns in widths}

    def _first_group(self, columns: int) -> tuple[int, Batch, float, str, int]:
        """The first mini-batch, its weight, and how a block of ``columns`` vectors is taken there."""
        if columns < 1:
            raise InvalidArgument(f"a block has {columns} columns: choose at least 1")
        self._look_at_memory()
        self._verified(columns)
        self._choice = self._chosen(columns)
        number, batch, weight = next(self._loaded())
        name, width = self._group(columns)
        return number, batch, weight, name, width

    @property
    def _repeats(self) -> bool:
        """True if every pass certainly yields the same mini-batches in the same order."""
        return isinstance(self.map.objective.data, list | tuple)

    # --- which strategy ---------------------------------------------------------------------------------------------------

    def replay(self, report: Mapping[str, Any] | None) -> None:
        """Use the strategy and the width of a report for all blocks from here on; None: choose again."""
        self._fixed = Choice(report["strategy"], report["width"]) if report else None
        if report and self._compiling.mode == "auto":
            self._compiling.is_on, self._compiling.tried = bool(report.get("compiled")), True
        if report and report.get("calibration") and self.by_differences:
            self.map.calibration = Calibration(**report["calibration"])
            return
        # What a run or the process that sent a report has verified is not verified again for the same fingerprint.
        if report and report.get("verdict") and self._verdict is None:
            self._follow(Verdict(**report["verdict"]))

    def verify(self, *, forward: bool) -> Verdict:
        """Verify the derivatives, unless that was done, and go on with what is right; see :func:`.verification.verify`.

        Args:
            forward: whether traced strategies are about to be used.
        """
        if self.by_differences:
            with ONE_AT_A_TIME:
                found = self.calibrated()
            self._verdict = Verdict(None, None, f"nothing but {found.summary}", found.error)
            self._derivatives = found.summary
            return self._verdict
        if self._verdict is None or not self._verdict.covers(forward=forward):
            known = self.map.verdict  # what a view has verified is not verified again
            if known is None or not known.covers(forward=forward):
                with jvp_warnings_silenced():
                    known = self.map.verdict = verify(self.map, forward=forward)
            self._follow(known)
        assert self._verdict is not None, "_follow() sets it"
        return self._verdict

    @property
    def by_differences(self) -> bool:
        """True if products are central differences of the gradient, which approximate the matrix."""
        return self.strategy in BY_DIFFERENCES

    def calibrated(self) -> Calibration:
        """Choose the step of differences, unless that was done; see :func:`.calibrate`."""
        if self.map.calibration is None:
            check_substitution(self.map.objective)
            self.map.calibration = calibrate(self.map)
        found: Calibration = self.map.calibration
        return found

    def _follow(self, verdict: Verdict) -> None:
        """Use what is right, and nothing else."""
        self._verdict, self._derivatives = verdict, verdict.summary
        self.map.objective.substitution = "in place" if verdict.in_place else "exchanged"
        if verdict.forward is False:
            self._replaced |= dict.fromkeys(FALLBACKS, "double_backward")
        if verdict.reverse is False:
            self._replaced["double_backward"] = "split"

    def _verified(self, columns: int) -> bool:
        """Verify what the next block of products will be computed by; whether nothing is traced for it."""
        with self.map.objective.isolated():
            waits = self._waits(columns)
        named = self._fixed.strategy if self._fixed is not None else self.strategy
        verdict = self.verify(forward=not waits and named != "double_backward")
        return waits and verdict.reverse is not False

    def _look_at_memory(self) -> None:
        """Note the memory that is kept between products already."""
        self.budget = memory_budget(self.memory, self.map.objective.device) + (self._kept.bytes if self.memory is None else 0)

    def _waits(self, columns: int) -> bool:
        """Return whether nothing is traced for this block, because that would take longer than products have taken so far."""
        if self.strategy != "auto" or self._fixed is not None or kind_of_block(columns) in self._settled:
            return False
        if self._settled and not self._patience.survey.shares_calls:
            return False  # one program serves blocks of all widths
        return self._patience.waits(columns) and self._patience.survey.group_bytes <= self.budget

    def _provisional(self, total: Tensor, tangents: Tensor) -> bool:
        """The products by double backward, timed; False: not possible here."""
        objective, columns = self.map.objective, tangents.shape[0]
        width = min(self.width or columns, group_width(objective, columns, self.budget, self._patience.survey))
        self._choice = Choice("double_backward", even(columns, width), provisional=True)
        try:
            seconds = seconds_of(partial(self._sum_of_batches, total, tangents), objective.device)
        except (RuntimeError, MemoryError) as error:
            log.debug("double_backward is not possible here, choosing at once: %s", error)
            self._patience.spent = float("inf")
            return False
        self._patience.spent += seconds
        return True

    def _chosen(self, columns: int) -> Choice:
        if self._fixed is not None:
            return replace(self._fixed, width=min(columns, self._fixed.width))
        if self.strategy != "auto":
            single = self.strategy in ("split", "linearize", *BY_DIFFERENCES)
            return Choice(self.strategy, 1 if single else min(columns, self.width or DEFAULT_WIDTH))
        if kind_of_block(columns) not in self._settled:
            self._settled.add(kind_of_block(columns))
            self._patience.spent = 0.0
        choice = self._chosen_before(columns)
        if choice is None:
            self._look_at_memory()
            number, batch, weight = next(self._loaded())
            what = self.map, self._strategies, batch, number, columns, self.budget, self._patience.survey
            trial = Trial(*what, to_come=products_to_come())
            choice = trial.choose()
            remember(self.map, columns, choice)
            # A loader may shuffle: this batch need not be the first one of the next pass.
            if trial.linearized is not None and self.width is None and self._repeats and not self._compiling.is_on:
                self._kept.use((choice.strategy, even(columns, choice.width)))
                self._kept.offer(number, trial.linearized, weight, self.budget // 2)
        width = min(columns, self.width or choice.width, choice.width)
        return Choice(choice.strategy, width, choice.trials, choice.skipped)

    def _chosen_before(self, columns: int) -> Choice | None:
        """The choice that is remembered, unless so many products were announced since that groups are to be tried now."""
        choice = remembered(self.map, columns)
        return None if choice is not None and 0 < choice.groups_from <= products_to_come() else choice

    def _strategy(self, name: str) -> Strategy:
        """The strategy of this name, its programs compiled where they are to be."""
        key = self._compiling.key(name)
        if key not in self._strategies:
            made = KNOWN[name](self.map)
            self._strategies[key] = with_compiler(made) if self._compiling.is_on else made
        return self._strategies[key]

    def _consider_compiling(self, tangents: Tensor) -> None:
        """Try compiled programs on the first mini-batch, where enough products were announced."""
        objective, to_come = self.map.objective, products_to_come()
        if not self._compiling.may_try(objective.device, to_come):
            return
        name, width = self._group(tangents.shape[0])
        number, batch, _ = next(self._loaded())
        plain, tried = self._strategy(name).linearize(batch, number, width), with_compiler(KNOWN[name](self.map))
        make = partial(tried.linearize, batch, number, width)
        self._compiling.choose(plain, tangents[:width], objective.num_pieces, to_come, make)
        if self._compiling.is_on:
            self._strategies[self._compiling.key(name)] = tried

    def _effective(self, name: str) -> str:
        while name in self._replaced:
            name = self._replaced[name]
        return name

    def _width(self, choice: Choice) -> int:
        return min(choice.width, self._narrowed.get(self._effective(choice.strategy), choice.width))

    # --- mini-batches outside, vectors inside ---------------------------------------------------------------------------------

    def _replayed(self, total: Tensor, tangents: Tensor) -> bool:
        """The sum from what is kept alone, where the model need not be looked after; False: that does not serve this block."""
        columns = tangents.shape[0]
        settled = kind_of_block(columns) in self._settled and self._chosen_before(columns) is not None
        if not self._kept.complete or not (self._fixed is not None or self.strategy != "auto" or settled):
            return False
        with self.map.objective.isolated(evaluated=False), jvp_warnings_silenced():
            self._choice = self._chosen(columns)
            return self._pass(total, tangents)

    def _sum_of_batches(self, total: Tensor, tangents: Tensor) -> None:
        while not self._pass(total, tangents):
            pass

    def _pass(self, total: Tensor, tangents: Tensor) -> bool:
        """Sum over every mini-batch; False when what was kept had to be let go of, and the pass must start again."""
        return all(self._add(total, tangents, number, batch, weight) for number, batch, weight in self._batches())

    def _batches(self) -> Iterator[tuple[int, Batch | None, float]]:
        """Number, batch and weight of every mini-batch; no batch is loaded when all linearisations are kept."""
        if self._kept.complete:
            for number, (_, weight) in sorted(self._kept.items.items()):
                yield number, None, weight
            return
        count = 0
        for number, batch, weight in self._loaded():
            count = number + 1
            yield number, batch, weight
        self._kept.complete = len(self._kept.items) == count
        if self._kept.items and not self._kept.complete and not self._repeats:
            # A loader may shuffle: half of one pass does not go with half of another.
            self._kept.close()

    def _loaded(self) -> Iterator[tuple[int, Batch, float]]:
        for number, (batch, weight) in enumerate(self.map.objective.batches()):
            yield number, self.map.prepare(batch, number), weight

    def _add(self, total: Tensor, tangents: Tensor, number: int, batch: Batch | None, weight: float) -> bool:
        """Add one mini-batch's products to ``total``; out of memory, go on with half the width from where it stopped."""
        start, columns = 0, tangents.shape[0]
        while start < columns:
            name, width = self._group(columns)
            try:
                linear = self._linearized(name, width, number, batch, weight)
                if linear is None:
                    return False
                while start < columns:
                    rows = slice(start, start + linear.width)
                    add_pieces(
                        self.map.objective.parameters.split(total[rows]), linear(tangents[rows]), weight, first=number == 0
                    )
                    start += linear.width
            except NotRecordable as error:
                if self._verdict is not None and self._verdict.reverse is False and FALLBACKS[name] == "double_backward":
                    raise UnverifiedDerivatives(
                        f"forward mode alone differentiates this model correctly ({self._derivatives}), but its operations "
                        f"cannot be traced: {error}"
                    ) from error
                log.debug("%s is not possible for this model (%s): going on with %s", name, error, FALLBACKS[name])
                self._replaced[name] = FALLBACKS[name]
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._narrow(name, width, batch, error)
        return True

    def _group(self, columns: int) -> tuple[str, int]:
        """The strategy in use, and the width that cuts a block into even groups."""
        assert self._choice is not None, "apply() chooses first"
        return self._effective(self._choice.strategy), even(columns, self._width(self._choice))

    def _linearized(self, name: str, width: int, number: int, batch: Batch | None, weight: float) -> Linearized | None:
        """Kept or made; None when it was kept once and the batch is not at hand."""
        self._kept.use((self._compiling.key(name), width))
        if number in self._kept.items:
            return self._kept.items[number][0]
        if batch is None:
            return None
        linear = self._strategy(name).linearize(batch, number, width)
        self._compiling.note(linear)
        self._kept.offer(number, linear, weight, self.budget // 2)
        return linear

    def _narrow(self, name: str, width: int, batch: Batch | None, error: BaseException) -> None:
        """After an allocation failed: let go of what is kept, or else halve the width."""
        if self._kept.bytes:
            log.warning("out of memory with %s: keeping nothing of the mini-batches from here on", name)
            self._kept.close()
            return
        if width == 1:
            raise OutOfBudget(
                f"one vector's product does not fit in memory ({error}): pass microbatch=... smaller than the "
                f"{length(batch) if batch is not None else 'present'} samples of a batch, or params=... for a block"
            ) from error
        self._narrowed[name] = width // 2
        log.warning("out of memory with %s, %d vectors at a time: going on with %d", name, width, width // 2)
