"""Formulas and roles of docstrings are rendered, in the built pages too."""

import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .built_pages import faults, read
from .test_reference import documented

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "text",
    [
        ".. math:: a = b",
        ".. math::\n\n    a = b",
        ".. math::\n    a = b",
        ".. math:: a\n    = b",
        ".. math:: a \\\\\n          = b\n\n",
        "    .. math:: a = b",
    ],
)
def test_every_shape_of_the_directive_is_a_formula(hooks, text):
    text = f"It is\n\n{text}\n\nand nothing else, not :math:`c`.\n\nCost: none."
    shown = hooks.as_markdown(text)
    assert "math::" not in shown
    assert read(shown)[1] == 2
    assert "and nothing else" in read(shown)[0]
    assert shown.index("<mi>a</mi>") < shown.index("<mi>b</mi>") < shown.index("and nothing else")


def test_all_formulas_of_the_reference_are_rendered(hooks):
    seen = 0
    for thing in documented():
        for item in [thing, *(vars(thing).values() if inspect.isclass(thing) else ())]:
            text = inspect.getdoc(item) if callable(item) or isinstance(item, property) else None
            if not text or "math" not in text:
                continue
            shown = hooks.as_markdown(text)
            assert "math::" not in shown, item
            assert read(shown)[1] >= len(re.findall(r"\.\. math::|:math:`", text)), item
            seen += 1
    assert seen > 15


def test_what_is_shown_raw_is_found(tmp_path):
    (tmp_path / "a.html").write_text("<p>.. math:: x</p><code>.. math:: y</code>")
    (tmp_path / "b.html").write_text("<p>see :func:`f` of \\theta</p><math><mi>x</mi></math>")
    assert [fault.split(":")[0] for fault in faults(tmp_path)] == ["a.html", "b.html", "b.html"]


@pytest.mark.slow
def test_built_pages_show_nothing_raw(tmp_path):
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", tmp_path / "site"]
    subprocess.run(build, cwd=ROOT, check=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    assert list(faults(tmp_path / "site")) == []
    pages = [read(page.read_text(encoding="utf-8"))[1] for page in (tmp_path / "site" / "reference").rglob("*.html")]
    assert sum(pages) > 30
