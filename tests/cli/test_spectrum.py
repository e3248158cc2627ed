"""The commands on whole spectra, as a person runs them."""

import json
import re

import pytest

from curvscope.report import _figures as figures
from curvscope.runs import measure_overlap
from curvscope.store import Run

TARGET = """
import torch
from torch import nn

def pair():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    return model, nn.CrossEntropyLoss(), [(torch.randn(20, 5), torch.arange(20) % 3)]

def training(watch):
    model, loss, data = pair()
    watch(model, loss, data)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    other = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        loss(model(data[0][0]), data[0][1]).backward()
        optimizer.step()
        other.step()

def failing(watch):
    training(watch)
    raise RuntimeError("no loss at step 4")

def forgetful(watch):
    pass

def matrix():
    return torch.diag(torch.cat([torch.tensor([9.0, 8.0, -5.0]), torch.linspace(-1, 1, 297)]))
"""


@pytest.fixture
def target(tmp_path, monkeypatch):
    name = f"spectral_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(TARGET)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda function: f"{name}:{function}"


def test_density_of_a_target(curvscope, target, tmp_path):
    asked = ("density", "--target", target("matrix"), "--probes", 3, "--steps", 30, "--out", "found")
    told = curvscope(*asked, "--between", 5, 20, "--json")
    assert told.status == 0, told.output
    facts = json.loads(told.output)
    assert facts["outliers"]["ratio"] == 2
    assert facts["between"]["count"] == pytest.approx(2, abs=4 * facts["between"]["stderr"])
    assert facts["products"] == 90
    assert json.loads((tmp_path / "found" / "density.json").read_text())["D"] == 300
    assert (tmp_path / "found" / "density.png").stat().st_size > 1000
    assert curvscope(*asked).status == 2  # nothing is overwritten


def test_density_of_a_run_takes_its_pairs_for_exact(curvscope, target):
    assert curvscope("eigs", "--target", target("matrix"), "-k", 3, "--method", "krylov", "--out", "run").status == 0
    told = curvscope("density", "run", "--method", "lanczos", "--probes", 2, "--steps", 10, "--between", 5, 20)
    assert told.status == 0, told.output
    assert "3 exact, 2 probes x 10 steps for the others" in told.output
    assert "in [5, 20]: 2 +- 0\n" in told.output
    assert "2 by ratio" in told.output


def test_the_report_of_a_run_shows_its_density_and_certificate(curvscope, target, tmp_path):
    asked = ("eigs", "--target", target("matrix"), "-k", 3, "--method", "krylov", "--out", "run")
    assert curvscope(*asked).status == 0
    assert curvscope("report", "run").status == 0
    assert "whole spectrum" not in (tmp_path / "run" / "report.html").read_text()
    assert curvscope("density", "run", "--method", "lanczos", "--probes", 2, "--steps", 10).status == 0
    assert curvscope("certify", "run").status == 0
    assert curvscope("report", "run").status == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "All 300 eigenvalues: 3 known exactly" in page
    assert "3 of 3" in page
    assert (tmp_path / "run" / "figures" / "the-whole-spectrum.png").exists()
    assert curvscope(*asked).status == 0  # the run is still one that can be gone on with


def test_all_eigenvalues_of_a_small_network(curvscope, target):
    facts = json.loads(curvscope("density", "--target", target("pair"), "--json").output)
    assert facts["D"] == facts["exact"] == facts["products"] == 39


def test_trace_by_layer(curvscope, target):
    told = curvscope("trace", "--target", target("pair"), "--norms", "--json")
    facts = json.loads(told.output)
    assert facts["trace"]["stderr"] == 0  # 39 parameters: exact
    assert sum(value for value, _ in facts["trace"]["layers"].values()) == pytest.approx(facts["trace"]["value"], rel=1e-5)
    assert facts["spectral_norm"]["value"] <= facts["frobenius_norm"]["value"] + 3 * facts["frobenius_norm"]["stderr"]
    shown = curvscope("trace", "--target", target("pair"), "--method", "hutchinson", "--rtol", 0.5)
    assert "0.weight" in shown.output
    assert "+-" in shown.output
    assert curvscope("trace", "--target", target("pair"), "--method", "hutch").status == 2


def test_track_a_training_function(curvscope, target, tmp_path):
    told = curvscope("track", "--target", target("training"), "-k", 3, "--every", 2, "--out", "found")
    assert told.status == 0, told.output
    lines = [json.loads(line) for line in (tmp_path / "found" / "track.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2, 4]
    assert lines[2]["curvature/loss"] < lines[0]["curvature/loss"]
    assert (tmp_path / "found" / "track.png").exists()
    assert curvscope("track", "--target", target("training"), "-k", 3, "--out", "found").status == 2
    assert "did not call watch" in str(curvscope("track", "--target", target("forgetful")).error)
    assert curvscope("track").status == 2


def test_track_keeps_what_it_found_when_the_training_fails(curvscope, target, tmp_path):
    told = curvscope("track", "--target", target("failing"), "-k", 3, "--every", 2, "--out", "found")
    assert told.status == 2
    assert re.search(r"the training failed at .*, line \d+: RuntimeError: no loss at step 4", str(told.error))
    lines = (tmp_path / "found" / "track.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 2]


def test_track_tells_before_the_training_what_cannot_work(curvscope, target, tmp_path):
    assert "with one argument" in str(curvscope("track", "--target", target("pair")).error)
    (tmp_path / "file").touch()
    refused = curvscope("track", "--target", target("training"), "-k", 3, "--out", "file/found")
    assert "file is a file" in str(refused.error)
    assert "Traceback" not in refused.output


def test_track_a_problem(curvscope):
    asked = ("track", "--problem", "mnist16", "-k", 2, "--every", 2, "--steps", 2, "--json")
    facts = json.loads(curvscope(*asked).output)
    assert list(facts) == ["0", "2"]
    assert facts["2"]["curvature/products"] < facts["0"]["curvature/products"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name a RUN, or name what is measured"),
        (("--problem", "mnist16", "--target", "a:b"), "pass one of RUN"),
        (("--problem", "mnist16", "--matrix", "fisher"), "--matrix"),
        (("--problem", "mnist16", "--between", 2, 1), "must not exceed"),
        (("--target", "a:b", "--step", 5), "--step"),
        (("run", "--split", "test"), "a RUN has its own"),
    ],
)
def test_bad_requests(curvscope, arguments, words):
    told = curvscope("density", *arguments)
    assert told.status == 2
    assert words in str(told.error)


def test_reports_of_a_zero_operator_and_of_one_pair(curvscope, tmp_path):
    (tmp_path / "smallest.py").write_text(
        "import torch\nfrom torch import nn\ndef zero():\n    return torch.zeros(6, 6)\n"
        "def one():\n    torch.manual_seed(0)\n"
        "    return nn.Linear(1, 1), nn.MSELoss(), [(torch.ones(2, 1), torch.zeros(2, 1))]\n"
    )
    for name in ("zero", "one"):
        assert curvscope("eigs", "-k", 1, "--target", f"smallest:{name}", "--out", name).status == 0
        assert curvscope("certify", name).status == 0
        assert curvscope("density", name).status == 0
        assert curvscope("report", name).status == 0  # warnings are errors here
        page = (tmp_path / name / "report.html").read_text()
        assert "eigenvalues, known exactly (ticks) with" in page
        assert "the others estimated" not in page
        assert "except with probability" not in page
    curve = measure_overlap(Run.open("one"))
    (drawn,) = (line for line in figures.overlaps({"one": curve}).axes[0].lines if line.get_label() == "one")
    assert drawn.get_marker() == "o"  # a line of one point is invisible
