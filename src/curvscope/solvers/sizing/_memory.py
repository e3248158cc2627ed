"""What a solve needs: memory by formula, with its matrices in memory or on disk, and what of it fits a bound."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from curvscope.errors import InvalidArgument, OutOfBudget
from curvscope.measurement import WIDEST_BLOCK, Fit, begun_with
from curvscope.operators.base import Operator
from curvscope.operators.products import available_bytes
from curvscope.sketches import KINDS
from curvscope.solvers.driver import Resources
from curvscope.system import SAFE_SHARE, as_bytes, as_text, default_memory, resident_bytes
from curvscope.tall import PANEL

CPU = torch.device("cpu")
PANELS = 6
"""Panels at a time: the one in use, the one that is read ahead, and their copies in double precision."""
PRODUCT_COLUMNS = 3
"""Columns that a product of one vector needs beside it and its result, for operators that do not say."""


class Stage(NamedTuple):
    """Memory of a stage: ``matrices`` columns if they are not on disk, ``blocks`` for each column of a block."""

    matrices: int
    blocks: int


@dataclass(frozen=True)
class Footprint:
    """Memory and disk of a solve, in bytes unless said otherwise.

    Attributes:
        column: of one column of D entries.
        stages: what each stage has in memory; the largest counts.
        stored_columns: most columns on disk at a time, in a run.
        small: matrices without D.
        panel: one panel.
        product: what a product needs for each vector, beside it and its result.
        product_fixed: what products need whatever the block.
    """

    column: int
    stages: tuple[Stage, ...]
    stored_columns: int
    small: int
    panel: int
    product: int
    product_fixed: int = 0

    def memory(self, block_size: int, *, resident: bool) -> int:
        """Most bytes at a time, beside what the process had before."""
        return max(self._fixed(stage, resident) + block_size * self._each(stage) for stage in self.stages)

    @property
    def resident_columns(self) -> int:
        """Most columns of matrices in memory at a time when they are there."""
        return max(stage.matrices for stage in self.stages)

    @property
    def disk(self) -> int:
        """Most bytes on disk at a time."""
        return self.stored_columns * self.column

    def widest(self, budget: int, *, resident: bool) -> int:
        """The widest block that fits a budget, 0 if none does."""
        rests = [(budget - self._fixed(stage, resident), self._each(stage)) for stage in self.stages]
        if any(rest < 0 for rest, _ in rests):
            return 0
        return max(0, min(rest // each for rest, each in rests if each))

    def _fixed(self, stage: Stage, resident: bool) -> int:
        matrices = stage.matrices * self.column if resident else 0
        return matrices + self.small + PANELS * self.panel + (self.product_fixed if stage.blocks else 0)

    def _each(self, stage: Stage) -> int:
        return stage.blocks * self.column + self.product if stage.blocks else 0


def footprint(method: str, operator: Operator, sizes: dict[str, Any], *, predict: bool = False) -> Footprint:
    """The formula of a method, for these sizes (k, ncv, num_outer, num_inner).

    With ``predict``, and always on a GPU, the operator is asked what its products need (``predicted_bytes``; curvature
    operators trace for it).

    In columns of D entries, with n_o outer and n_i inner measurements: the sketches hold their measurements and blocks of
    test matrix and products, then (the basis in the place of the measurements) basis and vectors, then vectors and blocks;
    Krylov its basis and blocks, basis and vectors, vectors and blocks. On disk all n_i measurements are kept, and a basis has
    its successor beside it.
    """
    rows, itemsize = operator.shape[0], operator.dtype.itemsize
    k, outer, inner = sizes.get("k") or 0, sizes.get("num_outer") or 0, sizes.get("num_inner") or 0
    ncv, block = sizes.get("ncv") or 0, sizes.get("block_size") or 0
    inner, k = max(inner, outer), k or outer
    last = Stage(k, 2)
    match method:
        case "krylov":
            basis = ncv + block
            stages, stored, widest, small = (Stage(basis, 3), Stage(basis + k, 0), last), 2 * basis + k, basis, 6 * ncv**2
        case "exact":
            dense = 4 * 8 * rows // itemsize
            stages, stored, widest, small = (Stage(dense // 4, 2), Stage(dense, 0), last), rows + k, k, 0
        case _:
            stages, widest, small = (Stage(outer, 2), Stage(outer + k, 0), last), outer, 9 * inner**2
            stored = inner + outer + k
    own, fixed = _product(operator, predict or operator.device.type != "cpu")
    return Footprint(
        column=rows * itemsize,
        stages=stages,
        stored_columns=stored,
        small=8 * small,
        panel=min(PANEL, rows * max(1, widest) * itemsize),
        product=own,
        product_fixed=fixed,
    )


def _product(operator: Operator, predict: bool) -> tuple[int, int]:
    """Bytes that products need for each vector beside the result, and whatever the block."""
    column = operator.shape[0] * operator.dtype.itemsize
    operator = operator.view()
    if predict and (one := operator.predicted_bytes(1)):
        nine = operator.predicted_bytes(9)
        each = max(0, (nine - one) // 8 - column)
        return each, max(0, one - each - column)
    return PRODUCT_COLUMNS * column, 0


def fit_sketch(
    method: str,
    operator: Operator,
    sizes: dict[str, int | None],
    resources: Resources,
    block_size: int | None,
    kinds: tuple[str, ...],
) -> Fit:
    """Return how a sketch of these sizes, with test matrices of these kinds, fits into memory; see :func:`fit`.

    A run that was begun keeps its block size.
    """
    check_block_size(block_size)
    memory, run = resources.memory, resources.run
    width = block_size or begun_with(run, "block_size")
    needs = footprint(method, operator, sizes, predict=memory is not None)
    test_matrices = max(operator.shape) * sum(KINDS[kind].row_bytes(operator.dtype.itemsize) for kind in kinds)
    needs = replace(needs, small=needs.small + test_matrices)
    default = min(WIDEST_BLOCK, operator.shape[0])
    return fit(needs, memory, block_size=width, default=default, stored=run is not None, device=operator.device)


def check_block_size(block_size: int | None) -> None:
    """Raise InvalidArgument unless block_size is None or at least 1."""
    if block_size is not None and block_size < 1:
        raise InvalidArgument(f"block_size={block_size}: choose at least 1")


def fit(
    needs: Footprint,
    memory: int | str | None,
    *,
    block_size: int | None,
    default: int,
    stored: bool,
    device: torch.device = CPU,
) -> Fit:
    """Return where the matrices of a solve shall lie, and how wide its blocks shall be.

    On a GPU: there, in what is free of its memory; else in the host's, else on disk.

    Args:
        needs: of the method.
        memory: bound for the resident memory of the whole process; None: current usage plus 80 % of the free memory.
        block_size: what the user asked for; None: as wide as fits, at most ``default``.
        default: of the block size.
        stored: whether there is a run for matrices that do not fit.
        device: of the operator.

    Raises:
        OutOfBudget: nothing fits; the message says what would.
    """
    bound = default_memory() if memory is None else as_bytes(memory)
    budget = bound - resident_bytes()
    wanted, least = block_size or default, block_size or 1
    if device.type != "cpu":
        return _fit_beside(needs, (bound, budget), wanted, least, stored, device)
    places = [(True, wanted), (False, least), (True, least)] if stored else [(True, wanted), (True, least)]
    for resident, enough in places:
        fitting = needs.widest(budget, resident=resident)
        if fitting >= enough:
            width = min(wanted, fitting)
            left = budget - needs.memory(width, resident=resident) + width * needs.product
            return Fit(
                width, resident, None if memory is None else left, min(WIDEST_BLOCK, fitting), needs.disk if stored else 0
            )
    raise OutOfBudget(_refusal(needs, bound, budget, wanted, stored=stored))


def _fit_beside(needs: Footprint, host: tuple[int, int], wanted: int, least: int, stored: bool, device: torch.device) -> Fit:
    """Return how a solve fits into the memory of a GPU and, if its matrices do not, of the host: (bound, budget)."""
    room, (bound, budget) = int(SAFE_SHARE * available_bytes(device)), host
    matrices, panels = needs.resident_columns * needs.column, needs.small + PANELS * needs.panel
    on_disk = needs.disk if stored else 0
    for resident, on_host, enough, taken in (
        (True, False, wanted, panels),
        (True, True, least, panels + matrices),
        (False, False, least, panels if stored else budget + 1),
        (True, False, least, panels),
    ):
        fitting = needs.widest(room, resident=resident and not on_host)
        if fitting >= enough and taken <= budget:
            return Fit(min(wanted, fitting), resident, None, min(WIDEST_BLOCK, fitting), on_disk, on_host)
    raise OutOfBudget(
        f"this needs {as_text(needs.memory(least, resident=False))} on {device} ({as_text(room)} are allowed, 0.8 of what is "
        f"free) and, with its matrices on the host, {as_text(bound - budget + panels + matrices)} of memory there "
        f"({as_text(bound)} are allowed): keep the matrices on disk with run=PATH (--out), {as_text(needs.disk)}; or a smaller "
        "k, ncv or sketch; or a smaller microbatch"
    )


def _refusal(needs: Footprint, bound: int, budget: int, block_size: int, *, stored: bool) -> str:
    needed = bound - budget + needs.memory(block_size, resident=not stored)
    remedies = [f"allow memory='{needed / 2**30:.2f}GiB'"]
    if not stored:
        on_disk = bound - budget + needs.memory(1, resident=False)
        if on_disk <= bound:
            remedies.append(f"keep the matrices on disk with run=PATH (--out), {as_text(needs.disk)}")
        columns = (budget - needs.memory(1, resident=False)) // needs.column
        if columns >= 1:
            remedies.append(f"a smaller k, ncv or sketch: {columns} columns fit, this takes {needs.resident_columns}")
    elif (fitting := needs.widest(budget, resident=False)) >= 1:
        remedies.append(f"block_size={fitting}")
    return (
        f"this needs {as_text(needed)} of memory, {as_text(bound)} is allowed (the process has {as_text(bound - budget)} "
        f"already): {'; or '.join(remedies)}; single precision halves it"
    )
