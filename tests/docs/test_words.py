"""Pages that explain are words, not figures: short sentences, and measured detail on the pages of measurements."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [*sorted((DOCS / "concepts").glob("*.md")), DOCS / "index.md", DOCS / "eigenpairs.md", DOCS / "studies.md"]
LONGEST, DIGITS = 20, 0.05


def prose(text):
    """A page without code, tables, headings, the addresses of links, and the list of sources."""
    text = re.sub(r"```.*?```|<!--.*?-->|`[^`\n]*`", "", text.split("\n## Sources")[0], flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(("|", "#", "!", "===")))


def words(text):
    return [word for word in text.split() if re.search(r"\w", word)]


def sentences(text):
    return [part for part in re.split(r"(?<=[.!?:;])\s+|\n\n|\n- ", text) if words(part)]


def test_how_it_counts():
    text = prose("# Head 1\n\nOne two. Three `4` [four](5.md): five 6!\n\n| 7 |\n```\n8 9\n```\n## Sources\nTen 10.\n")
    assert words(text) == ["One", "two.", "Three", "[four]:", "five", "6!"]
    assert [len(words(part)) for part in sentences(text)] == [2, 2, 2]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_are_words(page):
    found = words(prose(page.read_text()))
    assert len(found) / len(sentences(prose(page.read_text()))) <= LONGEST
    share = sum(bool(re.search(r"\d", word)) for word in found) / len(found)
    assert share <= DIGITS, f"{share:.1%} of the words have digits: move measured detail to docs/measurements.md"
