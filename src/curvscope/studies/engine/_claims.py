"""Tables of the kind "claim - measured - holds or not"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curvscope.report import Table

Claim = dict[str, Any]
"""claim, measured, holds; holds is None where the claim is reported only."""


def claim(name: str, text: str, measured: str, holds: bool | None) -> Claim:
    """One row, plain; ``name`` is the subject in a word or two, for readers who do not know a paper's numbering."""
    return {"name": name, "claim": text, "measured": measured, "holds": holds}


def claims_table(rows: Sequence[Claim]) -> Table:
    """The rows as a table, honest where a claim does not hold."""
    words = {True: "holds", False: "DOES NOT HOLD", None: "reported"}
    return Table(
        ["about", "claim", "measured", ""], [[row["name"], row["claim"], row["measured"], words[row["holds"]]] for row in rows]
    )


def share_holding(outcomes: Sequence[bool]) -> tuple[str, float]:
    """("9 of 12", 0.75)."""
    good = sum(outcomes)
    return f"{good} of {len(outcomes)}", good / len(outcomes)
