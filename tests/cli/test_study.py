"""``curvscope study``: the list, the run, and what is refused."""

import json
import os
import signal
from dataclasses import dataclass, replace

import pytest

from curvscope.report import Document, Section, Table
from curvscope.studies import STUDIES
from curvscope.studies.engine import Study


@dataclass(frozen=True)
class Config:
    size: int = 2
    names: tuple[str, ...] = ("a",)
    tol: float | None = None
    deep: bool = False
    checkpoints: str | None = None
    pairs: tuple[tuple[str, int], ...] = ()


@pytest.fixture
def small(monkeypatch):
    """A study that takes no time, in the place of a real one."""

    def document(numbers):
        return Document("Small", "", [Section("Table 2 of the paper", "", table=Table(["a", "b"], [["x", str(numbers["y"])]]))])

    def measure(stages, config, data):
        return stages.numbers("first", lambda: {"y": config.size, "names": config.names, "checkpoints": config.checkpoints})

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
    assert "The preset takes about no time on two cores." in made.output  # stated beforehand
    assert "Table 2 of the paper" in made.output
    assert (tmp_path / "results" / "report.html").exists()
    again = curvscope("study", "small", "--out", "results", "--json")
    expected = {"study": "small", "preset": "quick", "y": 2, "names": ["a"], "checkpoints": None}
    assert json.loads(again.output[again.output.index("{") :]) == expected


@pytest.mark.usefixtures("small")
def test_settings(curvscope):
    made = curvscope("study", "small", "--out", "results", "--set", "size=5", "--set", "names=a,b")
    assert made.status == 0
    assert "the settings change that" in made.output
    again = curvscope("study", "small", "--out", "results", "--set", "size=5", "--set", "names=a,b", "--json")
    assert json.loads(again.output[again.output.index("{") :])["y"] == 5
    assert "config.size is 5 in the run and 2 here" in str(curvscope("study", "small", "--out", "results").error)
    listed = json.loads(curvscope("study", "list", "--json").output)
    assert next(each for each in listed if each["name"] == "small")["settings"]["quick"]["size"] == 2


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("size", "is not NAME=VALUE; this study has size, names, tol, deep"),
        ("=3", "there is no setting ''; this study has size"),
        ("width=3", "there is no setting 'width'"),
        ("SIZE=3", "there is no setting 'SIZE'; this study has size"),
        ("pairs=a", "there is no setting 'pairs'"),  # not to be written in a line
        ("size=2.5", "size is a whole number, got '2.5'"),
        ("size=0", "size starts at 1"),
        ("tol=-1", "tol starts at 0"),
        ("size=", "size is a whole number, got ''"),
        ("size=3,4", "size is a whole number, got '3,4'"),
        ("names=a,", "names is one or more, separated by commas, each a word, got 'a,'"),
        ("names=", "each a word, got ''"),
        ("checkpoints=", "checkpoints is a word or none, got ''"),
        ("tol=nan", "tol is a number or none, got 'nan'"),
        ("size=none", "size is a whole number, got 'none'"),
        ("tol=much", "tol is a number or none, got 'much'"),
        ("deep=1", "deep is true or false, got '1'"),
    ],
)
def test_settings_refused(curvscope, tmp_path, assignment, message):
    refused = curvscope("study", "small", "--out", "results", "--set", assignment)
    assert refused.status == 2
    assert message in str(refused.error)
    assert not (tmp_path / "results").exists()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "size=3", "--set", "size=4"), "--set size=4: size is set twice: leave out one of them"),
        (("--set", "names=a", "--set", "names=b"), "--set names=b: names is set twice: several values are separated by commas"),
        (("--set", "checkpoints=x", "--checkpoints", "y"), "checkpoints is set twice"),
    ],
)
def test_a_setting_is_not_overwritten(curvscope, tmp_path, arguments, message):
    refused = curvscope("study", "small", "--out", "results", *arguments)
    assert refused.status == 2
    assert message in str(refused.error)
    assert not (tmp_path / "results").exists()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("assignment", "names"), [("names=b", ["b"]), (" names = a , b ", ["a", "b"]), ("names=a=b", ["a=b"])])
def test_values_of_a_tuple(curvscope, assignment, names):
    made = curvscope("study", "small", "--out", "results", "--set", assignment, "--json")
    assert json.loads(made.output[made.output.index("{") :])["names"] == names


@pytest.mark.usefixtures("small")
def test_checkpoints_are_a_setting(curvscope, tmp_path):
    made = curvscope("study", "small", "--out", "results", "--checkpoints", "steps", "--json")
    assert json.loads(made.output[made.output.index("{") :])["checkpoints"] == str(tmp_path / "steps")


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


def test_a_study_that_is_stopped_says_how_to_resume(curvscope, small, monkeypatch):
    asked = []

    def measure(stages, config, data):
        first = stages.numbers("first", lambda: asked.append("first") or {"y": 1})
        if not asked[1:]:
            asked.append("second")
            raise KeyboardInterrupt
        return first

    monkeypatch.setitem(STUDIES, "small", replace(STUDIES["small"], measure=measure))
    stopped = curvscope("study", "small", "--out", "here")
    assert stopped.status == 130
    assert "the stages that are done are in here: the same command resumes after them" in stopped.output
    assert curvscope("study", "small", "--out", "here").status == 0
    assert asked == ["first", "second"]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_ctrl_c_ends_a_study_at_once_and_what_is_done_is_not_done_again(curvscope, small, monkeypatch, tmp_path, stage):
    done = []

    def measure(stages, config, data):
        def compute(number):
            if number == stage and number not in done:
                done.append(number)
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(1000):  # the signal is delivered between two instructions
                    pass
                pytest.fail("work went on after Ctrl-C")
            done.append(number)
            return {"y": number}

        return [stages.numbers(f"stage-{i}", lambda i=i: compute(i)) for i in (1, 2, 3)][-1]

    monkeypatch.setitem(STUDIES, "small", replace(STUDIES["small"], measure=measure))
    assert curvscope("study", "small", "--out", "here").status == 130
    assert curvscope("study", "small", "--out", "here").status == 0
    assert done == [*range(1, stage + 1), *range(stage, 4)]
    sessions = json.loads((tmp_path / "here" / "manifest.json").read_text())["sessions"]
    assert [session["work"] for session in sessions] == ["study", "study"]
    assert sessions[0]["ended"]["how"].startswith("KeyboardInterrupt")
    assert sessions[1]["ended"]["how"] == "finished"


def test_two_processes_do_not_work_in_one_folder(curvscope, small, monkeypatch):
    inner = []

    def measure(stages, config, data):
        if not inner:
            inner.append(None)
            inner.append(curvscope("study", "small", "--out", "here"))
        return {"y": 1}

    monkeypatch.setitem(STUDIES, "small", replace(STUDIES["small"], measure=measure))
    assert curvscope("study", "small", "--out", "here").status == 0
    assert inner[1].status == 2
    assert "here is in use" in str(inner[1].error)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("first", "then", "named"),
    [
        ((), ("--set", "size=3"), "config.size is 2 in the run and 3 here"),
        (("--set", "names=a,b"), (), 'config.names is ["a", "b"] in the run and ["a"] here'),
        (("--set", "tol=0.1"), ("--set", "deep=true"), "config.tol is 0.1 in the run and not set here; config.deep is false"),
    ],
)
def test_other_settings_are_refused_and_named(curvscope, first, then, named):
    assert curvscope("study", "small", "--out", "results", *first).status == 0
    refused = curvscope("study", "small", "--out", "results", *then)
    assert refused.status == 2
    assert named in str(refused.error)
