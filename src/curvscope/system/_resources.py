"""Memory: how much a process has, how much it took, and how people write it."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

import psutil

from curvscope.errors import InvalidArgument, InvalidType

Result = TypeVar("Result")

UNITS = {"": 1, "B": 1} | {
    name: base**power
    for base, suffix in ((1024, "iB"), (1000, "B"))
    for power, letter in enumerate("KMGT", start=1)
    for name in (letter + suffix,)
}
SAFE_SHARE = 0.8
"""Of the free memory, what a solve may take unless it is told."""

_c_library = ctypes.CDLL(None) if platform.system() == "Linux" else None
CLEAR_PEAK = Path("/proc/self/clear_refs")


def as_bytes(memory: int | str) -> int:
    """A number of bytes, from a number or a text such as "8GiB", "500 MB".

    Raises:
        InvalidType, InvalidArgument: something else, or nothing.

    >>> as_bytes("4GiB") == 4 * 2**30, as_bytes("1.5 MB"), as_bytes(1000)
    (True, 1500000, 1000)
    """
    if isinstance(memory, bool) or not isinstance(memory, int | str):
        raise InvalidType(f"memory={memory!r}: pass a number of bytes or a text such as '8GiB'")
    parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(memory))
    unit = {name.lower(): size for name, size in UNITS.items()}.get(parts[2].lower()) if parts else None
    if parts is None or unit is None or not (found := int(float(parts[1]) * unit)):
        raise InvalidArgument(f"memory={memory!r}: pass a number of bytes or a text such as '8GiB', '500 MB'")
    return found


def as_text(count: float) -> str:
    """Bytes as people read them.

    >>> as_text(4 * 2**30), as_text(1500)
    ('4.0 GiB', '1.5 KiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def resident_bytes() -> int:
    """Resident memory of this process now."""
    return int(_process(os.getpid()).memory_info().rss)


@cache
def _process(pid: int) -> psutil.Process:
    """Return the handle of this process: making one reads more files than asking it. By number: forks have their own."""
    return psutil.Process(pid)


def give_back() -> None:
    """Return what was freed to the system: the C library of Linux keeps blocks of megabytes, in pieces, for the next ones.

    Cost: about a millisecond; elsewhere nothing happens.
    """
    trim = getattr(_c_library, "malloc_trim", None)
    if trim is not None:
        trim(0)


def default_memory() -> int:
    """Return the memory that this process may use in all by default: what it has, and a safe share of what is free."""
    return resident_bytes() + int(SAFE_SHARE * psutil.virtual_memory().available)


def peak_resident_bytes() -> int:
    """Largest resident memory of this process so far (where the system does not tell: the present one)."""
    memory = _process(os.getpid()).memory_info()
    if hasattr(memory, "peak_wset"):
        return max(int(memory.peak_wset), _highest)
    try:
        import resource
    except ImportError:
        return int(memory.rss)
    unit = 1 if platform.system() == "Darwin" else 1024
    return max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, _highest)


_highest = 0


def extra_memory(work: Callable[[], Result]) -> tuple[Result, int]:
    """Return the result of ``work``, and how far it raised the resident memory above what it was before.

    On Linux the system's own high-water mark is reset and read, which catches every peak; elsewhere only a new record of the
    whole process is seen.
    """
    global _highest
    _highest = peak_resident_bytes()
    before = resident_bytes()
    try:
        CLEAR_PEAK.write_text("5")
        kept, _highest = _highest, 0
    except OSError:
        kept = _highest
    try:
        result = work()
        extra = max(0, peak_resident_bytes() - before)
    finally:
        _highest = max(kept, peak_resident_bytes())
    return result, extra
