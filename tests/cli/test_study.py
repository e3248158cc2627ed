"""``curvscope study``: the list, the run, and what is refused."""

import json
from dataclasses import dataclass

import pytest

from curvscope.report import Document, Section, Table
from curvscope.studies.registry import STUDIES
from curvscope.studies.study import Study


@dataclass(frozen=True)
class Config:
    size: int = 2


@pytest.fixture
def small(monkeypatch):
    """A study that takes no time, in the place of a real one."""

    def document(numbers):
        return Document("Small", "", [Section("Table 2 of the paper", "", table=Table(["a", "b"], [["x", str(numbers["y"])]]))])

    def measure(stages, config, data):
        return stages.numbers("first", lambda: {"y": config.size})

    study = Study("small", "A small one", "no figure", {"quick": Config()}, {"quick": "no time"}, measure, document)
    monkeypatch.setitem(STUDIES, "small", study)


def test_list(curvscope):
    shown = curvscope("study", "list")
    assert shown.status == 0
    assert all(name in shown.output for name in STUDIES)
    listed = json.loads(curvscope("study", "list", "--json").output)
    assert [each["name"] for each in listed] == list(STUDIES)


@pytest.mark.usefixtures("small")
def test_run(curvscope, tmp_path):
    made = curvscope("study", "small", "--out", "results")
    assert made.status == 0
    assert "Takes about no time on two cores" in made.output  # stated beforehand
    assert "Table 2 of the paper" in made.output
    assert (tmp_path / "results" / "report.html").exists()
    again = curvscope("study", "small", "--out", "results", "--json")
    assert json.loads(again.output[again.output.index("{") :]) == {"study": "small", "preset": "quick", "y": 2}


def test_refused(curvscope):
    for arguments, message in (
        (("study", "nothing", "--out", "x"), "choose one of"),
        (("study", "mnist16-overlap"), "--out DIR is missing"),
        (("study", "mnist16-overlap", "--out", "x", "--preset", "full"), "has quick, paper"),
        (("study", "mnist16-overlap", "--out", "x", "--data", "nowhere"), "is not a directory"),
    ):
        outcome = curvscope(*arguments)
        assert outcome.status == 2
        assert message in str(outcome.error)
