"""The page "Figures and tables, one by one": ``python docs/paper_items.py`` writes it, from the studies and a list.

What studies announce is generated; everything else stands in ``paper_items.tsv``.
"""

import csv
from pathlib import Path

from curvscope.studies import STUDIES
from curvscope.studies.engine import items

DOCS = Path(__file__).parent
PAPERS = {
    "2025": "Fernandez et al. 2025 (arXiv 2504.14701)",
    "2017": "Sagun et al. 2017 (arXiv 1706.04454)",
    "2016": "Sagun, Bottou, LeCun 2016 (arXiv 1611.07476)",
    "2018": "Gur-Ari, Roberts, Dyer 2018 (arXiv 1812.04754)",
    "2025b": "Song, Ahn, Yun 2025 (arXiv 2405.16002)",
}
WORDS = {
    "done": "a command or function repeats it",
    "partly": "what is missing is in the note",
    "differs": "on purpose, as the note says",
    "beyond": "not in the paper",
    "missing": "not done",
}
HEAD = """# Figures and tables, one by one

What the papers show, what of it is repeated here, and by which command. Figures, tables, equations and algorithms
that a study announces
are listed from the studies themselves; a test compares each study's page with what it announces. This page is written by
`python docs/paper_items.py`.
"""


def figures() -> list[tuple[str, str, str, str, str]]:
    """Rows of what studies announce: paper, item, state, command, note."""
    rows = []
    for study in STUDIES.values():
        for part in study.shows.split(";"):
            paper = "2017" if "2017" in part else "2016" if "2016" in part else "2025"
            rows += [(paper, item, "done", f"curvscope study {study.name}", "") for item in items(part)]
    return sorted(set(rows), key=lambda row: (row[0], row[1].split()[0], int(row[1].split()[1]), row[1], row[3]))


def listed() -> list[tuple[str, str, str, str, str]]:
    """Rows of the list."""
    with (DOCS / "paper_items.tsv").open(newline="") as stream:
        return [
            (row["paper"], row["item"], row["state"], row["where"] or "", row["note"] or "")
            for row in csv.DictReader(stream, delimiter="\t")
        ]


def page() -> str:
    """The page as Markdown."""
    rows = [*figures(), *listed()]
    counts = {state: sum(row[2] == state for row in rows) for state in WORDS}
    text = [HEAD, f"{len(rows)} rows:", ""]
    text += [f"- {count} {state}: {WORDS[state]}" for state, count in counts.items()]
    for paper, title in PAPERS.items():
        text += ["", f"## {title}", "", "| item | state | command or name | note |", "| --- | --- | --- | --- |"]
        text += [
            f"| {item} | {state} | {f'`{where}`' if where else ''} | {note} |"
            for own, item, state, where, note in rows
            if own == paper
        ]
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    (DOCS / "paper-items.md").write_text(page())
