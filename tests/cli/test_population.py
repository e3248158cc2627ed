"""``curvscope population RUN``, as a person runs it."""

import json

import numpy as np
import pytest

import curvscope as cs
from curvscope.store import Run

TARGET = """
import torch
from torch import nn

def pair():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    return model, nn.CrossEntropyLoss(), [(torch.randn(100, 5), torch.arange(100) % 3)]

def matrix():
    return torch.diag(torch.arange(1.0, 41.0))
"""


@pytest.fixture
def made(curvscope, tmp_path, monkeypatch):
    name = f"sampled_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(TARGET)
    monkeypatch.syspath_prepend(tmp_path)

    def run(function, folder):
        assert curvscope("eigs", "--target", f"{name}:{function}", "-k", 3, "--out", folder).status == 0
        return folder

    return run


def test_a_run_is_told_apart_from_its_population(curvscope, made, tmp_path):
    folder = made("pair", "run")
    told = curvscope("population", folder, "--folds", 8, "--out", "figure.png", "--trust")
    assert told.status == 0, told.output
    assert "this sample" in told.output
    assert "sampling bracket" in told.output
    assert "100 samples determine" in told.output
    assert (tmp_path / "figure.png").stat().st_size > 1000
    kept = cs.open(tmp_path / folder / "population.json")
    assert kept.samples == 100
    again = curvscope("population", folder, "--folds", 8, "--json", "--trust")
    assert again.status == 0, again.output
    facts = json.loads(again.output)
    assert facts["estimate"] == kept.estimate.tolist()
    assert facts["summary"] == kept.summary()
    report = curvscope("report", folder)
    assert report.status == 0, report.output
    page = (tmp_path / folder / "report.html").read_text()
    assert "Sample and population" in page
    assert "sampling" in page
    # the run is what it was: it can still be resumed
    assert curvscope("certify", folder, "--trust").status == 0
    assert Run.open(tmp_path / folder).manifest["kind"] == "eigs"


def test_what_cannot_be_done_is_said_in_the_words_of_the_command(curvscope, made):
    folder = made("pair", "run")
    few = curvscope("population", folder, "--folds", 60, "--trust")
    assert few.status == 2
    assert "100 samples for 60 folds" in str(few.error)
    matrix = curvscope("population", made("matrix", "other"), "--trust")
    assert matrix.status == 2
    assert "does not know the samples" in str(matrix.error)
    assert curvscope("population", folder, "--out", "figure.txt", "--trust").status == 2


def test_overlaps_with_masks_have_their_sampling_intervals(curvscope, made, tmp_path):
    folder = made("pair", "run")
    np.save(tmp_path / "mask.npy", np.arange(75) < 5)
    chosen = ("--mask", "magnitude", "--mask", tmp_path / "mask.npy")
    told = curvscope("population", folder, "--folds", 8, *chosen, "--trust")
    assert told.status == 0, told.output
    assert "Overlap with given mask" in told.output
    kept = cs.open(tmp_path / folder / "population.json")
    curve = kept.overlaps["magnitude"]
    assert (curve.sampling_lower <= curve.sampling_upper).all()
    # both kinds of intervals stand side by side where the overlap is shown
    shown = curvscope("overlap", folder, "--json")
    assert json.loads(shown.output)["sampling_lower"] == curve.sampling_lower.tolist()
    assert "sampling" in curvscope("overlap", folder).output
    # other masks take the same halves
    assert curvscope("population", folder, "--folds", 8, "--mask", "random", "--trust").status == 0


@pytest.mark.parametrize(("mask", "words"), [("best", "another one for every eigenspace"), ("none.npy", "no such file")])
def test_masks_that_cannot_be_are_refused_in_words(curvscope, made, mask, words):
    told = curvscope("population", made("pair", "run"), "--mask", mask, "--trust")
    assert told.status == 2
    assert words in str(told.error)


def test_a_learning_curve_is_drawn_kept_and_shown(curvscope, made, tmp_path):
    folder = made("pair", "run")
    told = curvscope("population", folder, "--folds", 4, "--curve", "--out", "figure.png", "--trust")
    assert told.status == 0, told.output
    assert "Curvature against the number of samples" in told.output
    assert cs.open(tmp_path / folder / "learning-curve.json").sizes.tolist() == [6, 12, 25, 50, 100]
    assert curvscope("report", folder).status == 0
    assert "How many samples?" in (tmp_path / folder / "report.html").read_text()
