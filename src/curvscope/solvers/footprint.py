"""What a solve needs: memory by formula, with its matrices in memory or on disk, and what of it fits a bound."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from curvscope.errors import InvalidArgument, OutOfBudget
from curvscope.execution.resources import as_bytes, as_text, default_memory, resident_bytes
from curvscope.operators import Operator
from curvscope.solvers.session import begun_with
from curvscope.solvers.workspace import WIDEST_BLOCK, Fit
from curvscope.tall.disk import PANEL

PANELS = 6
"""Panels at a time: the one in use, the one that is read ahead, and their copies in double precision."""
PRODUCT_COLUMNS = 3
"""Columns that a product of one vector needs beside it and its result, for operators that do not say."""


@dataclass(frozen=True)
class Footprint:
    """Memory and disk of a solve, in bytes unless said otherwise.

    Attributes:
        column: of one column of D entries.
        resident_columns: most columns in memory at a time when the matrices are there.
        stored_columns: most columns on disk at a time, in a run.
        block_columns: columns in memory at a time for each column of a block, the product's own needs not counted.
        small: matrices without D.
        panel: one panel.
        product: what a product needs for each vector, beside it and its result.
        product_fixed: what products need whatever the block.
    """

    column: int
    resident_columns: int
    stored_columns: int
    block_columns: int
    small: int
    panel: int
    product: int
    product_fixed: int = 0

    def memory(self, block_size: int, *, resident: bool) -> int:
        """Most bytes at a time, beside what the process had before."""
        matrices = self.resident_columns * self.column if resident else 0
        block = block_size * (self.block_columns * self.column + self.product)
        return matrices + block + self.small + PANELS * self.panel + self.product_fixed

    @property
    def disk(self) -> int:
        """Most bytes on disk at a time."""
        return self.stored_columns * self.column

    def widest(self, budget: int, *, resident: bool) -> int:
        """The widest block that fits a budget, 0 if none does."""
        rest = budget - self.memory(0, resident=resident)
        return max(0, rest // (self.block_columns * self.column + self.product))


def footprint(method: str, operator: Operator, sizes: dict[str, Any], *, predict: bool = False) -> Footprint:
    """The formula of a method, for these sizes (k, ncv, num_outer, num_inner).

    With ``predict`` the operator is asked what its products need (``predicted_bytes``; curvature operators trace for it).

    In units of columns of D entries, with n_o outer and n_i inner measurements: the sketches hold their measurements and a
    basis (and then basis and vectors), Nystrom the shifted measurements besides; Krylov its basis and the vectors. On disk
    all n_i measurements are kept, and a basis has its successor beside it while it is rotated.
    """
    rows, itemsize = operator.shape[0], operator.dtype.itemsize
    k, outer, inner = sizes.get("k") or 0, sizes.get("num_outer") or 0, sizes.get("num_inner") or 0
    ncv, block = sizes.get("ncv") or 0, sizes.get("block_size") or 0
    inner, k = max(inner, outer), k or outer
    match method:
        case "krylov":
            resident, stored, widest, small = ncv + block + k, 2 * (ncv + block) + k, ncv, 6 * ncv**2
        case "exact":
            resident, stored, widest, small = k + 4 * 8 * rows // itemsize, rows + k, k, 0
        case "nystrom" | "singlepass":
            resident, stored, widest, small = 2 * outer + k, 2 * outer + k, outer, 4 * outer**2
        case _:
            resident, stored, widest, small = 2 * outer + k, inner + outer + k, outer, 6 * inner**2
    panel = min(PANEL, rows * max(1, widest) * itemsize)
    own, fixed = _product(operator, predict)
    return Footprint(
        column=rows * itemsize,
        resident_columns=resident,
        stored_columns=stored,
        block_columns=3,
        small=8 * small,
        panel=panel,
        product=own,
        product_fixed=fixed,
    )


def _product(operator: Operator, predict: bool) -> tuple[int, int]:
    """Bytes that products need for each vector beside the result, and whatever the block."""
    column = operator.shape[0] * operator.dtype.itemsize
    asked = getattr(operator, "predicted_bytes", None)
    if predict and asked is not None:
        one, nine = asked(1), asked(9)
        each = max(0, (nine - one) // 8 - column)
        return each, max(0, one - each - column)
    return PRODUCT_COLUMNS * column, 0


def fit_sketch(
    method: str, operator: Operator, sizes: dict[str, int | None], memory: int | str | None, block_size: int | None, run: Any
) -> Fit:
    """How a sketch of these sizes fits into memory; see :func:`fit`. A run that was begun keeps its block size."""
    check_block_size(block_size)
    width = block_size or begun_with(run, "block_size")
    needs = footprint(method, operator, sizes, predict=memory is not None)
    return fit(needs, memory, block_size=width, default=min(WIDEST_BLOCK, operator.shape[0]), stored=run is not None)


def check_block_size(block_size: int | None) -> None:
    """Raise InvalidArgument unless block_size is None or at least 1."""
    if block_size is not None and block_size < 1:
        raise InvalidArgument(f"block_size={block_size}: choose at least 1")


def fit(needs: Footprint, memory: int | str | None, *, block_size: int | None, default: int, stored: bool) -> Fit:
    """Where the matrices of a solve shall lie, and how wide its blocks shall be.

    Args:
        needs: of the method.
        memory: bound for the resident memory of the whole process; None: what it has and 0.8 of what is free.
        block_size: what the user asked for; None: as wide as fits, at most ``default``.
        default: of the block size.
        stored: whether there is a run for matrices that do not fit.

    Raises:
        OutOfBudget: nothing fits; the message says what would.
    """
    bound = default_memory() if memory is None else as_bytes(memory)
    budget = bound - resident_bytes()
    wanted, least = block_size or default, block_size or 1
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


def _refusal(needs: Footprint, bound: int, budget: int, block_size: int, *, stored: bool) -> str:
    needed = bound - budget + needs.memory(block_size, resident=not stored)
    ways = [f"allow memory='{needed / 2**30:.2f}GiB'"]
    if not stored:
        on_disk = bound - budget + needs.memory(1, resident=False)
        if on_disk <= bound:
            ways.append(f"keep the matrices on disk with run=PATH (--out), {as_text(needs.disk)}")
        columns = (budget - replace(needs, resident_columns=0).memory(1, resident=True)) // needs.column
        if columns >= 1:
            ways.append(f"a smaller k, ncv or sketch: {columns} columns fit, this takes {needs.resident_columns}")
    elif (fitting := needs.widest(budget, resident=False)) >= 1:
        ways.append(f"block_size={fitting}")
    return (
        f"this needs {as_text(needed)} of memory, {as_text(bound)} is allowed (the process has {as_text(bound - budget)} "
        f"already): {'; or '.join(ways)}; single precision halves it"
    )
