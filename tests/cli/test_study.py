"""``curvscope study``: the list, the run, and what is refused."""

import json

import pytest

from curvscope.studies import grassmann_metrics
from curvscope.studies.registry import STUDIES


@pytest.fixture
def short(monkeypatch):
    config = grassmann_metrics.GrassmannConfig(
        sizes=(16,), sizes_by_rho=(16,), rhos=(0.4,), samples=3, table_rhos=(0.005,), table_samples=20, mean_samples=20
    )
    monkeypatch.setitem(grassmann_metrics.PRESETS, "quick", config)


def test_list(curvscope):
    shown = curvscope("study", "list")
    assert shown.status == 0
    assert all(name in shown.output for name in STUDIES)
    listed = json.loads(curvscope("study", "list", "--json").output)
    assert [each["name"] for each in listed] == list(STUDIES)


@pytest.mark.usefixtures("short")
def test_run(curvscope, tmp_path):
    made = curvscope("study", "grassmann-metrics", "--out", "results")
    assert made.status == 0
    assert "on two cores" in made.output  # the time, stated beforehand
    assert "Table 2 of the paper" in made.output
    assert (tmp_path / "results" / "report.html").exists()
    again = curvscope("study", "grassmann-metrics", "--out", "results", "--json")
    assert json.loads(again.output[again.output.index("{") :])["study"] == "grassmann-metrics"


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
