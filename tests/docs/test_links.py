"""Links of the Markdown files lead somewhere, as one sees them in the repository; `mkdocs build --strict` checks the site."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ["*.md", "docs/**/*.md", "benchmarks/**/*.md", "examples/**/*.md", "src/**/*.md"]
FILES = sorted(path for pattern in OURS for path in ROOT.glob(pattern))
LINK = re.compile(r"(?<!\\)\]\(([^()\s]+)\)")
FENCED = re.compile(r"^ *```.*?^ *```$", re.M | re.S)


def anchors(page):
    """The anchors of a page's headings, as they are made from them: small letters, without punctuation, - for blanks."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_files_were_found():
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"} <= {path.name for path in FILES}


@pytest.mark.parametrize("page", FILES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    for link in LINK.findall(FENCED.sub("", page.read_text())):
        place, _, anchor = link.partition("#")
        if "://" in place or place.startswith("mailto:"):
            continue
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{page.name} links to {link}, which is not there"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page.name} links to {link}: no such heading"
