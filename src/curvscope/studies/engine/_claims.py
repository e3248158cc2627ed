"""Tables of the kind "claim - measured - holds or not", with errors over networks beside each mark."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median, stdev
from typing import Any, Literal

from curvscope.report import Table
from curvscope.sampling import student_quantile

Claim = dict[str, Any]
"""claim, measured, holds; holds is None where the claim is reported only."""
UNDECIDED: Literal["undecided"] = "undecided"
"""The verdict where the mark lies inside the interval of what was measured."""
Verdict = bool | Literal["undecided"] | None
CONFIDENCE = 0.975


def claim(name: str, text: str, measured: str, holds: Verdict) -> Claim:
    """One row, plain; ``name`` is the subject in a word or two, for readers who do not know a paper's numbering."""
    return {"name": name, "claim": text, "measured": measured, "holds": holds}


def claims_table(rows: Sequence[Claim]) -> Table:
    """Return the rows as a table, which says where a claim does not hold, or is not decided by what was measured."""
    words = {True: "holds", False: "DOES NOT HOLD", None: "reported", UNDECIDED: "NOT DECIDED"}
    return Table(
        ["about", "claim", "measured", ""], [[row["name"], row["claim"], row["measured"], words[row["holds"]]] for row in rows]
    )


def share_holding(outcomes: Sequence[bool]) -> tuple[str, float]:
    """Return the number of outcomes that hold, in words, and their share; NaN of none.

    >>> share_holding([True, False, True, True])
    ('3 of 4', 0.75)
    """
    good = sum(outcomes)
    return f"{good} of {len(outcomes)}", good / len(outcomes) if outcomes else float("nan")


def half_width(values: Sequence[float]) -> float:
    """Return the half-width of Student's 95 % interval of a mean over networks; infinite for fewer than two.

    >>> round(half_width([1.0, 2.0, 3.0]), 3)
    2.484
    """
    if len(values) < 2:
        return float("inf")
    width: float = student_quantile(CONFIDENCE, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return width


def summary(values: Sequence[float], form: str = ".3g") -> str:
    """Return mean, standard error, median and number of networks, in words.

    >>> summary([1.0, 2.0, 6.0])
    '3 ± 1.5 (median 2, n = 3)'
    """
    error = f" ± {stdev(values) / len(values) ** 0.5:.2g}" if len(values) > 1 else ""
    return f"{fmean(values):{form}}{error} (median {median(values):{form}}, n = {len(values)})"


def verdict(values: Sequence[float], *, least: float | None = None, most: float | None = None) -> Verdict:
    """Return whether the mean over networks reaches a mark, by its 95 % interval.

    Args:
        values: one for each network.
        least: the mark, where the mean should be at least that.
        most: the mark, where the mean should be at most that.

    Returns:
        True or False where the whole interval lies on one side of the mark, ``UNDECIDED`` otherwise.

    >>> verdict([1.0, 1.1, 0.9], least=0.5), verdict([1.0, 1.1, 0.9], most=0.5), verdict([1.0, 1.1, 0.9], least=1.0)
    (True, False, 'undecided')
    """
    middle, half = fmean(values), half_width(values)
    if least is not None:
        above, below = middle - half >= least, middle + half < least
    elif most is not None:
        above, below = middle + half <= most, middle - half > most
    else:
        return None
    return True if above else False if below else UNDECIDED


def share_verdict(good: int, count: int, least: float) -> Verdict:
    """Return whether a share of yes and no reaches a mark, by Wilson's 95 % interval; of none it is undecided.

    >>> share_verdict(10, 10, 0.5), share_verdict(9, 10, 0.8), share_verdict(0, 10, 0.8)
    (True, 'undecided', False)
    """
    if not count:
        return UNDECIDED
    z = 1.959964
    share, size = good / count, 1 + z * z / count
    middle = (share + z * z / (2 * count)) / size
    half = z / size * ((share * (1 - share) + z * z / (4 * count)) / count) ** 0.5
    return True if middle - half >= least else False if middle + half < least else UNDECIDED
