"""What pages promise to hold: every study with its presets; on each concept page where it fails, and its sources."""

import re
import tomllib
from pathlib import Path

import pytest

from curvscope.cli.main import COMMANDS
from curvscope.studies import STUDIES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_every_study_is_listed_with_its_presets():
    page = (DOCS / "studies.md").read_text()
    rows = dict(re.findall(r"^\| `([\w-]+)` \|(.*)\|$", page, re.MULTILINE))
    assert set(rows) == set(STUDIES)
    presets = {name: row.split("|")[-1].strip() for name, row in rows.items()}
    assert all(set(presets[name].split(", ")) == set(study.presets) for name, study in STUDIES.items())


@pytest.mark.parametrize("page", sorted((DOCS / "concepts").glob("*.md")), ids=lambda page: page.stem)
def test_a_concept_has_code_and_ends_with_failures_and_sources(page):
    text = page.read_text()
    assert "```python" in text
    assert re.findall(r"^## (.+)$", text, re.MULTILINE)[-2:] == ["When it fails", "Sources"]


def test_every_command_is_named():
    text = "".join(page.read_text() for page in DOCS.rglob("*.md"))
    assert [name for name in COMMANDS if f"curvscope {name}" not in text] == []


def test_the_citation_is_of_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"version: {project['version']}\n" in (ROOT / "CITATION.cff").read_text()
