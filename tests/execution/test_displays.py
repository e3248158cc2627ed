"""Progress in terminals, notebooks and batch jobs."""

import io
import logging

import nbclient
import nbformat
import pytest

from curvscope.system import _displays as displays, stage


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""
    seconds = [0.0]
    monkeypatch.setattr(displays, "_now", lambda: seconds[0])
    return seconds


class Terminal(io.StringIO):
    def isatty(self):
        return True


def work(clock, seconds, steps=10, **options):
    with stage("products", steps, **options) as advance:
        for number in range(steps):
            clock[0] += seconds / steps
            advance(note=f"residual {number}")


def test_a_batch_job_logs_a_line_now_and_then(clock, caplog, monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with caplog.at_level(logging.INFO, "curvscope.progress"):
        work(clock, 100)
    assert [record.getMessage() for record in caplog.records] == [
        "products: 3 of 10 (30 %) in 30 s, about 1 min 10 s left; residual 2",
        "products: 6 of 10 (60 %) in 1 min, about 40 s left; residual 5",
        "products: 9 of 10 (90 %) in 1 min 30 s, about 10 s left; residual 8",
        "products: 10 of 10 (100 %) in 1 min 40 s; residual 9",
    ]
    assert not displays.sys.stderr.getvalue()


def test_short_work_logs_nothing(clock, caplog, monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with caplog.at_level(logging.INFO, "curvscope.progress"):
        work(clock, 20)
    assert not caplog.records


def test_lines_are_written_where_they_are_asked_for(clock, caplog, monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    with caplog.at_level(logging.INFO, "curvscope.progress"):
        work(clock, 20, progress=True)
        work(clock, 40, progress=False)
    assert written.getvalue() == "products: 10 of 10 (100 %) in 20 s; residual 9\n"
    assert not caplog.records


def test_work_of_no_known_length(clock, caplog, monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with caplog.at_level(logging.INFO, "curvscope.progress"), stage("steps", 0) as advance:
        clock[0] += 31
        advance(5)
    assert [record.getMessage() for record in caplog.records] == ["steps: 5 in 31 s"] * 2


@pytest.mark.parametrize("progress", [None, True])
def test_a_terminal_has_a_bar(clock, caplog, monkeypatch, progress):
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with caplog.at_level(logging.INFO, "curvscope.progress"):
        work(clock, 100, progress=progress)
    assert "products" in screen.getvalue()
    assert "10/10" in screen.getvalue()
    assert not caplog.records


def test_nobody_to_tell(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    with stage("products", 2) as advance:
        advance(2)
    with stage("products", 2, progress=True) as advance:
        advance(2)


SOLVE = """
import torch
import curvscope as cs
found = cs.eigsh(torch.diag(torch.arange(1.0, 301, dtype=torch.float64)), 3, method="krylov")
"""


def test_a_notebook_shows_a_bar():
    cells = [nbformat.v4.new_code_cell(SOLVE), nbformat.v4.new_code_cell(SOLVE.replace("krylov", "seigh"))]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    for cell in cells:
        streams = "".join(output.get("text", "") for output in cell.outputs if output.output_type == "stream")
        widgets = [output for output in cell.outputs if "application/vnd.jupyter.widget-view+json" in output.get("data", {})]
        assert "%|" in streams or widgets
        assert "Warning" not in streams
