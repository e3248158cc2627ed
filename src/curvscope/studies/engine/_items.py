"""Figures, tables, equations and algorithms that a text names, one by one."""

from __future__ import annotations

import re

PARTS = r"(?:\s*\([a-z]+(?:,? (?:and )?[a-z]+)*\))?"
KIND = re.compile(r"(figure|table|equation|algorithm)s?\s+((?:\d+" + PARTS + r"(?:,\s*|\s+and\s+|\s+to\s+|-)?)+)")
NUMBER = re.compile(r"(to\s+|-)?(\d+)(?:\s*\(([a-z, ]+)\))?")


def items(text: str) -> set[str]:
    """Return what a text names: figures, tables, equations and algorithms, a range as its members, parts of one by themselves.

    Names of papers between them do not matter; two papers in one text are told apart by the caller.

    >>> sorted(items("figures 1 (left) and 3 to 5, table 2"))
    ['figure 1 (left)', 'figure 3', 'figure 4', 'figure 5', 'table 2']
    >>> sorted(items("Sagun et al. 2017: figures 4, 6-8"))
    ['figure 4', 'figure 6', 'figure 7', 'figure 8']
    """
    found: set[str] = set()
    for kind, numbers in KIND.findall(text):
        last = 0
        for joined, number, parts in NUMBER.findall(numbers):
            for each in range(last + 1 if joined else int(number), int(number) + 1):
                found |= (
                    {f"{kind} {each} ({part.strip()})" for part in re.split(r",| and ", parts)} if parts else {f"{kind} {each}"}
                )
            last = int(number)
    return found
