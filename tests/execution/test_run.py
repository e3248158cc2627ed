"""Runs on disk and progress."""

import json

import pytest
import torch

from curvscope.errors import RunConflict, RunNotFound
from curvscope.store import Run
from curvscope.store._run import check_free
from curvscope.system import stage, threads


def test_create_open_write_read(tmp_path):
    run = Run.create(tmp_path / "a" / "run", kind="eigs", options={"k": 5})
    assert Run.open(run.path).manifest == run.manifest
    assert run.manifest["versions"]["torch"]
    run.write_json("numbers.json", [1, 2])
    assert run.read_json("numbers.json") == [1, 2]
    assert run.read_json("nothing.json") is None
    run.write_text("report.html", "first")
    run.write_text("report.html", "second")
    assert (run.path / "report.html").read_text() == "second"
    assert sorted(f.name for f in run.path.iterdir()) == ["manifest.json", "numbers.json", "report.html"]


def test_nothing_is_overwritten(tmp_path):
    Run.create(tmp_path / "run", kind="eigs", options={})
    with pytest.raises(RunConflict, match="holds another run"):
        Run.create(tmp_path / "run", kind="eigs", options={})
    (tmp_path / "other").mkdir()
    check_free(tmp_path / "other")
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(RunConflict, match="is not empty"):
        Run.create(tmp_path / "other", kind="eigs", options={})
    with pytest.raises(RunConflict, match="is a file"):
        check_free(tmp_path / "other" / "thesis.txt")


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(RunNotFound, match="is no run"):
        Run.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(RunNotFound, match="not readable JSON"):
        Run.open(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(RunNotFound, match="has format 'other'"):
        Run.open(tmp_path)
    for content, what in (
        (b"[1]", "not readable"),
        (b"\xff\xfe", "not readable"),
        (b'{"format": "curvscope run 1"}', "has no kind"),
    ):
        (tmp_path / "manifest.json").write_bytes(content)
        with pytest.raises(RunNotFound, match=what):
            Run.open(tmp_path)


def test_progress_bar_callback_and_silence(capsys):
    with stage("work", 2, True) as advance:
        advance(2, note="residual 1e-3")
    assert "work" in capsys.readouterr().err
    with stage("work", 2, None) as advance:
        advance(1)
    assert capsys.readouterr().err == ""
    events = []
    with stage("work", 2, lambda *event: events.append(event)) as advance:
        advance(1, note="half")
    assert events == [("work", 0, 2, ""), ("work", 1, 2, "half")]


def test_threads_are_restored_after_an_exception():
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="inside"), threads(1):
        raise ValueError("inside")
    assert torch.get_num_threads() == before
