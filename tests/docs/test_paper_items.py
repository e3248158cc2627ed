"""The page of figures and tables is the one that its script writes, and names studies that there are."""

import importlib.util
import re
from pathlib import Path

import pytest

from curvscope.studies import STUDIES
from curvscope.studies.engine import items

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("paper_items", DOCS / "paper_items.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(script):
    assert (DOCS / "paper-items.md").read_text() == script.page(), "run python docs/paper_items.py"


def test_rows_have_a_state_and_name_studies_that_exist(script):
    for paper, item, state, where, note in [*script.figures(), *script.listed()]:
        assert paper in script.PAPERS, item
        assert state in script.WORDS, item
        assert where or state == "missing", item
        assert note or state != "partly", item
        for name in re.findall(r"curvscope study ([\w-]+)", where):
            assert name in STUDIES, item


def test_every_study_of_figures_is_there(script):
    shown = {row[3].removeprefix("curvscope study ") for row in script.figures()}
    assert {name for name, study in STUDIES.items() if items(study.shows)} == shown
