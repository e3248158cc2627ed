"""What is wrong with the pages of a built site, as a reader sees them.

    python tests/docs/built_pages.py build/site

Prints each fault; exit status 1 if there is any.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

RAW = re.compile(r"\.\. (?:math|code|note)::|:(?:func|class|meth|mod|data|attr|math):`|\\(?:frac|sum|theta|nabla|lVert)\b")
"""Directives, roles and TeX that should have been rendered."""


class Text(HTMLParser):
    """The text of a page outside of code, and how many formulas it has."""

    def __init__(self):
        super().__init__()
        self.text, self.inside, self.formulas = [], [], 0

    def handle_starttag(self, tag, attrs):
        self.formulas += tag == "math"
        if tag in ("code", "pre", "script", "style"):
            self.inside.append(tag)

    def handle_endtag(self, tag):
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, data):
        if not self.inside:
            self.text.append(data)


def read(page):
    """The text of a page outside of code, and its number of formulas."""
    found = Text()
    found.feed(page)
    return " ".join(found.text), found.formulas


def faults(site):
    """(page, what is shown raw) for every page."""
    for page in sorted(Path(site).rglob("*.html")):
        text, _ = read(page.read_text(encoding="utf-8"))
        for raw in RAW.finditer(text):
            yield f"{page.relative_to(site)}: {text[max(raw.start() - 40, 0) : raw.end() + 40]!r}"


if __name__ == "__main__":
    found = list(faults(sys.argv[1]))
    sys.stdout.write("".join(f"{fault}\n" for fault in found))
    sys.exit(bool(found))
