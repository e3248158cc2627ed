"""Stage times: what is timed, what is extrapolated and labelled, what is left out; the GPU benchmark on the CPU."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

import curvscope as cs
from curvscope.errors import InvalidArgument, OutOfBudget
from curvscope.problems._imagenet_resnet18 import ImagenetWithResnet18
from curvscope.store import Run
from curvscope.studies.engine import Stages
from curvscope.studies.sketched_overlap import _runtimes as runtimes, _stage_times as stage_times


@pytest.fixture
def small():
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    x = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
    return cs.hessian(model, nn.CrossEntropyLoss(), [(x, torch.arange(12) % 3)]), cs.masks.by_magnitude(model)


def test_products_are_extrapolated_and_said_to_be(small, monkeypatch):
    monkeypatch.setattr(stage_times, "_timed", lambda H, work: (work(), 1.0))
    found = stage_times.stage_times(*small, num_outer=6, num_inner=20, timed_products=8, block_size=4)
    seconds = found["seconds"]
    assert found["extrapolated"]
    assert found["timed_products"] == 8
    assert seconds["products"] == 2 * 20 / 8  # two blocks of four were timed
    assert seconds["test vectors"] == 20 / 4
    assert seconds["compression"] == 14 / 4
    assert (seconds["QR"], seconds["core"], seconds["overlap"], seconds["first product"]) == (1, 1, 1, 1)
    assert found["total"] == sum(seconds.values())
    whole = stage_times.stage_times(*small, num_outer=6, num_inner=20, block_size=4)
    assert not whole["extrapolated"]
    assert whole["seconds"]["products"] == 5


def test_what_cannot_be_timed(small, monkeypatch):
    with pytest.raises(InvalidArgument, match="not in order"):
        stage_times.stage_times(*small, num_outer=6, num_inner=6)
    monkeypatch.setattr(stage_times, "default_memory", lambda: 1000)
    with pytest.raises(OutOfBudget, match="choose a smaller num_outer"):
        stage_times.stage_times(*small, num_outer=6, num_inner=20)


def test_cases_without_data_are_left_out_with_the_reason(tmp_path):
    stages = Stages(Run.create(tmp_path / "study", kind="study", options={}), progress=False)
    cases = (("cifar10_3c3d", "train", 1000, 2000), ("mnist16", "train", 10, 24))
    numbers = runtimes.measure(stages, runtimes.RuntimesConfig(cases=cases, timed_products=8), None)
    assert "needs CIFAR-10" in numbers["cases"]["cifar10_3c3d train"]["left_out"]
    page = runtimes.document({**numbers, "preset": "none"})
    tables = {section.title: section.table for section in page.sections}
    assert tables["Left out"].rows[0][0] == "cifar10_3c3d train"
    against = {row[1]: row[2:] for row in tables["Beside the paper's figure 18"].rows}
    assert against["layout"] == ["88", "not measured"]  # of ResNet-18, as printed: no preset of ours took it
    mnist = {row[1]: row[2:] for row in tables["Beside the paper's figure 18"].rows if row[0] == "mnist16 train"}
    assert mnist["layout"] == mnist["merge"] == ["not published", runtimes.GONE]
    texts = [section.text for section in page.sections]
    assert any("mnist16 train from 8 of 24" in text and "rough guide" in text for text in texts)


def test_cases_of_one_problem_stand_beside_each_other(tmp_path, monkeypatch):
    stages = Stages(Run.create(tmp_path / "study", kind="study", options={}), progress=False)
    seconds = dict.fromkeys(("test vectors", "products", "compression", "QR", "core", "first product", "overlap"), 60.0)

    def case(stages, config, data, name, split, sizes):
        own = {stage: sizes[0] * second for stage, second in seconds.items()}
        return {"problem": name, "num_outer": sizes[0], "seconds": own, "total": 1.0}

    monkeypatch.setattr(runtimes, "_case", case)
    cases = (("mnist16", "train", 1, 24), ("mnist16", "train", 2, 24), ("mnist16", "test", 3, 24))
    found = runtimes.measure(stages, runtimes.RuntimesConfig(cases=cases), None)["cases"]
    assert [own["num_outer"] for own in found.values()] == [1, 2, 3]
    sheet = runtimes._figure_18(found)
    axes = next(axes for axes in sheet.axes if "mnist16" in axes.get_title() + axes.get_title("left"))
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["measured, train, 1 and 24", "measured, train, 2 and 24", "measured, test"]
    assert [bars.patches[1].get_width() for bars in axes.containers] == [3, 6, 9]  # minutes of the products


def test_the_papers_minutes_stand_beside_ours():
    seconds = dict.fromkeys(("test vectors", "products", "compression", "QR", "core", "first product", "overlap"), 60.0)
    case = {"problem": "imagenet_resnet18", "num_outer": 1500, "num_inner": 3000, "seconds": seconds, "total": 420.0}
    found = runtimes._against_paper({"imagenet_resnet18 test": case}).rows
    rows = {row[1]: row[2:] for row in found if row[0] == "imagenet_resnet18 test"}
    assert rows["HVPs"] == ["8760", "3.00"]
    assert rows["lstsq"] == ["610", "1.00"]
    assert rows["TOTAL"] == ["9586", "7.00"]


def test_the_gpu_benchmark_runs_on_the_cpu(monkeypatch):
    def model(self, seed=None):
        return nn.Sequential(nn.Conv2d(3, 2, 3, stride=8), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 1000))

    monkeypatch.setattr(ImagenetWithResnet18, "model", model)
    path = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
    spec = importlib.util.spec_from_file_location("gpu_benchmark", path)
    gpu = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gpu)
    options = ["--synthetic", "--device", "cpu", "--tiny", "--samples", "4", "--batch", "2", "--block", "2"]
    found = gpu.main(gpu.parsed([*options, "--precision", "float64", "tf32", "bfloat16"]))
    assert found["N"] == 4
    assert not found["quotable"]
    assert found["precisions"]["float64"]["relative error"] < 1e-5
    assert 1e-5 < found["precisions"]["bfloat16"]["relative error"] < 0.3
    assert "needs an NVIDIA GPU" in found["precisions"]["tf32"]["not here"]
    assert set(found["Gram-Schmidt pass, seconds"]) == {"on the device", "on the host"}
    assert found["basis"] == "device"
    assert set(found["minutes"]) >= {"products", "QR", "core", "total"}
