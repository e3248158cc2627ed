"""Tables of the kind "paper, measured, difference"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curvscope.report import Table

Row = dict[str, Any]
"""what, paper, measured, allowed; allowed is None where nothing was promised."""


def row(what: str, paper: float, measured: float, allowed: float | None = None) -> Row:
    """One comparison, plain numbers."""
    return {"what": what, "paper": paper, "measured": measured, "difference": measured - paper, "allowed": allowed}


def within(rows: Sequence[Row]) -> bool:
    """Return whether every difference is as small as was promised."""
    return all(each["allowed"] is None or abs(each["difference"]) <= each["allowed"] for each in rows)


def comparison(rows: Sequence[Row]) -> Table:
    """The rows as a table; the last column says whether the difference is as small as promised."""
    heads = ["quantity", "paper", "measured", "difference", "allowed", ""]
    return Table(heads, [_cells(each) for each in rows])


def _cells(each: Row) -> list[str]:
    allowed = each["allowed"]
    verdict = "" if allowed is None else "yes" if abs(each["difference"]) <= allowed else "NO"
    return [
        each["what"],
        f"{each['paper']:.6g}",
        f"{each['measured']:.6g}",
        f"{each['difference']:+.1e}",
        "" if allowed is None else f"{allowed:.1e}",
        verdict,
    ]
