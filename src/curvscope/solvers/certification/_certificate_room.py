"""Memory of a certificate: how many vectors it holds at a time, and where those of its Lanczos run lie."""

from __future__ import annotations

from typing import NamedTuple

from curvscope.errors import OutOfBudget
from curvscope.operators.base import Operator
from curvscope.system import as_bytes, as_text, default_memory, resident_bytes

BLOCK = 32
"""Columns multiplied at a time, at most."""
NOISE_VECTORS = 42
"""Measuring the error of products holds 15 vectors, 9 products, and these in double precision."""
LANCZOS_VECTORS = 8
"""Beside its basis a Lanczos step holds the start, a product, its copy, and what is projected out of it."""


class Room(NamedTuple):
    """Placement of a certificate in memory.

    Attributes:
        block_size: columns multiplied at a time.
        on_disk: whether the basis of the Lanczos run lies in the run.
        products: bytes that are left for products; None: nobody asked for a bound.
    """

    block_size: int
    on_disk: bool
    products: int | None


def room_for_certificate(
    operator: Operator, *, k: int, steps: int, memory: int | str | None, higher: bool, has_run: bool
) -> Room:
    """Return how a certificate keeps within a bound for the memory of the process.

    Args:
        operator: whose vectors are counted; on a GPU its own memory is, which is not looked at.
        k: pairs.
        steps: of the Lanczos run.
        memory: the bound, as for :func:`curvscope.eigsh`; None: what the process has and 0.8 of what is free.
        higher: whether the pairs are improved in higher precision, which takes two D x k matrices.
        has_run: whether there is a run whose disk can hold the Lanczos basis.

    Raises:
        OutOfBudget: it cannot; says what would.
    """
    vector = operator.shape[0] * operator.dtype.itemsize
    if operator.device.type != "cpu" and memory is None:
        return Room(BLOCK, on_disk=False, products=None)
    whole = default_memory() if memory is None else as_bytes(memory)
    free = max(0, whole - resident_bytes()) // vector
    pairs = 2 * k if higher else 0
    steps = min(steps, operator.shape[0])
    least = pairs + max(NOISE_VECTORS, LANCZOS_VECTORS)
    in_memory = pairs + max(NOISE_VECTORS, steps + LANCZOS_VECTORS)
    if free < (least if has_run else in_memory):
        needed = (least if has_run else in_memory) * vector
        told = "memory=" if memory is None else f"memory={memory!r}"
        other = "" if has_run or free < least else ", or pass run=PATH, whose disk then holds the vectors of the Lanczos run"
        higher_too = ", or certify in the precision of the solution" if higher else ""
        raise OutOfBudget(
            f"a certificate of {k} pairs takes {as_text(needed)} beside what the process has, {as_text(free * vector)} are "
            f"left ({told}): allow {as_text(resident_bytes() + needed)}{other}{higher_too}"
        )
    on_disk = free < in_memory
    block = int(max(1, min(BLOCK, (free - pairs) // 2)))
    left = free * vector - (least if on_disk else in_memory) * vector
    return Room(block, on_disk, None if memory is None else max(vector, left))
