"""The studies, shortened: the same path with fewer steps, pairs and samples; what they write, and that they go on."""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
import torch

import curvscope as cs
from curvscope.errors import InvalidArgument, RunConflict
from curvscope.report import Line, Panel, panels
from curvscope.store import Run
from curvscope.studies import STUDIES, get_study
from curvscope.studies.beyond import alignment, another_sample, beyond, perturbations
from curvscope.studies.engine import Stages, comparison, items, published, row, run_study, within
from curvscope.studies.sagun import gradient_subspace, sagun_batch, sagun_data, sagun_size, sagun_split
from curvscope.studies.sketched_overlap import (
    grassmann_metrics,
    mnist16_crystallization,
    mnist16_overlap,
    mnist16_proxies,
    overlap_at_scale,
    runtimes,
)
from curvscope.studies.stability import edge_of_stability, eigenvectors_along_training

SHORT = {
    "another-sample": another_sample.SampleConfig(steps=(0, 3), k=3, folds=4, halvings=1),
    "grassmann-metrics": grassmann_metrics.GrassmannConfig(
        sizes=(16, 32), sizes_by_rho=(32,), rhos=(0.4, 0.2), samples=5, table_rhos=(0.005,), table_samples=30, mean_samples=60
    ),
    "mnist16-overlap": mnist16_overlap.OverlapConfig(steps=(5,), k=12, num_outer=15, num_inner=30, random_masks=3),
    "mnist16-crystallization": mnist16_crystallization.CrystallizationConfig(steps=(0, 4, 8), rhos=(0.002, 0.001)),
    "overlap-at-scale": overlap_at_scale.ScaleConfig(
        problem="mnist16", steps=(3,), k=6, spare=6, num_outer=15, num_inner=30, samples_per_class=4, random_masks=2, every=2
    ),
    "runtimes": runtimes.RuntimesConfig(cases=(("mnist16", "train", 10, 24), ("mnist16", "test", 10, 24)), timed_products=8),
    "beyond": beyond.BeyondConfig(
        seeds=(0, 1), k=4, steps=(), trained=3, widths=(4, 6), depths=(1,), sparsities=(0.5, 0.9), probes=20, tol=1e-2
    ),
    "alignment": alignment.AlignmentConfig(steps=3, k=3, factors=(4.0,), scales=(), seeds=2, tol=1e-2),
    "masked-perturbations": perturbations.PerturbationConfig(
        steps=(2,), sizes=(10,), lengths=(0.01, 0.1), draws=4, k=10, seeds=2
    ),
    "mnist16-proxies": mnist16_proxies.ProxyConfig(steps=(0,), lambdas=(1.0,), k=12, num_probes=4, num_samples=20),
    "sagun-data": sagun_data.DataConfig(
        widths=(2, 6),
        deviations=(0.2, 0.8),
        deviation_width=2,
        seeds=2,
        starts=3,
        small_steps=50,
        classes=(2,),
        samples=40,
        steps=10,
        variances=(1.0,),
        num_probes=2,
        num_steps=8,
    ),
    "sagun-split": sagun_split.SplitConfig(tiny_samples=6, seeds=1, steps=100, samples=60, alphas=(0.2, 1.0)),
    "sagun-size": sagun_size.SizeConfig(
        widths=(2, 3), steps=3, num_probes=2, num_steps=15, clusters=2, cluster_steps=3, seeds=2
    ),
    "sagun-batch": sagun_batch.BatchConfig(
        hidden=3,
        small=5,
        large=20,
        steps=5,
        num_probes=2,
        num_steps=15,
        looks=2,
        seeds=2,
        bend_steps=5,
    ),
    "edge-of-stability": edge_of_stability.EdgeConfig(hidden=3, steps=12, every=6),
    "eigenvectors-along-training": eigenvectors_along_training.EigenvectorConfig(hidden=3, steps=6, every=3, k=2),
    "gradient-subspace": gradient_subspace.SubspaceConfig(hidden=2, k=2, steps=2, every=1, late=1, seeds=1),
}


@pytest.fixture
def fewer_parameters(monkeypatch):
    """Proxies measure all D columns: a narrower network keeps the test cheap."""
    monkeypatch.setattr("curvscope.problems._mnist16.WIDTHS", (256, 3, 10))
    monkeypatch.setattr(mnist16_proxies, "SHOWN_K", (10, 50))


@pytest.fixture(scope="module")
def overlap_run(tmp_path_factory):
    """One run of the overlap study, for all who look at it."""
    out = tmp_path_factory.mktemp("overlap") / "study"
    return out, run_study(get_study("mnist16-overlap"), out, config=SHORT["mnist16-overlap"])


LONG = {
    "alignment",
    "another-sample",
    "masked-perturbations",
    "mnist16-crystallization",
    "grassmann-metrics",
    "mnist16-proxies",
    "overlap-at-scale",
    "sagun-batch",
    "sagun-data",
    "beyond",
    "edge-of-stability",
}
"""10 to 30 seconds each: the way of a study is that of the others, and tests of their own look at their numbers."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in STUDIES])
def test_a_study_writes_numbers_figures_and_a_page(name, tmp_path, request):
    if name == "mnist16-proxies":
        request.getfixturevalue("fewer_parameters")
    study, config, out = get_study(name), SHORT[name], tmp_path / "study"
    if name == "mnist16-overlap":
        out, document = request.getfixturevalue("overlap_run")
    else:
        document = run_study(study, out, config=config)
    numbers = json.loads((out / "numbers.json").read_text())
    assert numbers["study"] == name
    assert numbers["config"] == json.loads(json.dumps(vars(config)))
    figures = sum(section.figure is not None for section in document.sections)
    files = sorted(file.suffix for file in (out / "figures").iterdir())
    assert files == [".pdf"] * figures + [".png"] * figures + [".svg"] * figures
    assert set().union(*(items(section.shows) for section in document.sections)) == items(study.shows)
    fewest = {
        "runtimes": 1,
        "alignment": 1,
        "masked-perturbations": 1,
        "beyond": 2,
        **dict.fromkeys((name for name in STUDIES if name.startswith(("sagun", "gradient", "edge", "eigenv"))), 2),
    }
    assert figures >= fewest.get(name, 4)
    for file in (out / "figures").glob("*.svg"):
        assert ElementTree.parse(file).getroot().tag.endswith("svg")
    page = (out / "report.html").read_text()
    for section in document.sections:
        assert section.title.replace("'", "&#39;") in page

    # gone on with, it computes nothing that is there; after an interruption, only what is missing
    stages = Stages(Run.open(out), progress=False)
    before = {file: file.stat().st_mtime_ns for file in (out / "stages").iterdir()}
    again = json.loads(json.dumps(study.measure(stages, config, None)))
    assert {file: file.stat().st_mtime_ns for file in (out / "stages").iterdir()} == before
    assert_same(again, {key: value for key, value in numbers.items() if key in again})
    victim = sorted((out / "stages").glob("*.json"))[-2]
    victim.unlink()
    assert_same(json.loads(json.dumps(study.measure(stages, config, None))), again)
    assert victim.exists()
    # and other options are refused
    with pytest.raises(RunConflict, match=r"config.seed is \d+ in the run and 7 here"):
        run_study(study, out, config=replace(config, seed=7))


def assert_same(found, expected):
    """Equal but for times and what was chosen by them, and for rounding where products may be computed in another way."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        timed = {"seconds", "products", "worst_relative_residual", "sketch", "total", "a_product", "strategy"}
        for key in expected.keys() - timed:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
    else:
        assert found == expected


def test_overlap_study_equals_the_library(overlap_run):
    """The study's numbers against pairs from another start."""
    own = json.loads((overlap_run[0] / "numbers.json").read_text())["checkpoints"]["5 train"]
    problem = cs.problems.get("mnist16")
    model = cs.Recorder(problem.model(), [5], path=overlap_run[0] / "parameters", resume=True).load(5, problem.model())
    H = cs.hessian(model, problem.criterion, problem.curvature_batches("train"), dtype=torch.float64)
    solution = cs.eigsh(H, k=14, method="krylov", tol=1e-8, seed=99)
    assert own["eigenvalues"] == pytest.approx(solution.eigenvalues[:12].tolist(), rel=1e-9)
    curve = cs.overlap(solution, cs.masks.by_magnitude(model))
    assert own["overlap"]["value"] == pytest.approx(curve.value[:12].tolist(), abs=1e-9)
    assert own["complete"] >= 12


def test_published_numbers_and_tables():
    assert set(published("mnist16")["steps"]) == {"0", "100", "1000"}
    rows = [row("a", 1.0, 1.1, 0.2), row("b", 1.0, 1.1)]
    assert within(rows)
    assert not within([row("c", 1.0, 1.1, 0.05)])
    assert [cells[-1] for cells in comparison([*rows, row("c", 1.0, 1.1, 0.05)]).rows] == ["yes", "", "NO"]


def test_table_2_is_compared_with_honest_errors(tmp_path):
    """The allowed difference is three standard errors of a median of 50: 95 % of true medians lie within two of them."""
    sample = torch.randn(4000, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    error = grassmann_metrics.median_error(sample, 50)
    assert error == pytest.approx((torch.pi / 2 / 50) ** 0.5, rel=0.1)  # asymptotic, of a normal


def test_what_cannot_be_run_is_named(tmp_path):
    with pytest.raises(InvalidArgument, match="choose one of grassmann-metrics, mnist16-overlap"):
        get_study("mnist16")
    with pytest.raises(InvalidArgument, match="preset='fast': mnist16-overlap has quick, paper"):
        run_study(get_study("mnist16-overlap"), tmp_path / "study", preset="fast")
    assert not (tmp_path / "study").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(RunConflict, match="is not empty"):
        run_study(get_study("mnist16-overlap"), tmp_path / "other")
    Run.create(tmp_path / "demo", kind="demo", options={})
    with pytest.raises(RunConflict, match="is a run of 'demo', not of 'study'"):
        run_study(get_study("mnist16-overlap"), tmp_path / "demo")


def test_steps_that_make_no_sequence_are_refused_before_any_work(tmp_path):
    for steps in ((0,), (5, 0), (0, 20, 100)):
        config = mnist16_crystallization.CrystallizationConfig(steps=steps)
        with pytest.raises(InvalidArgument, match="evenly spaced"):
            run_study(mnist16_crystallization.STUDY, tmp_path / "-".join(map(str, steps)), config=config)
    with pytest.raises(InvalidArgument, match="at least two"):
        run_study(sagun_size.STUDY, tmp_path / "widths", config=sagun_size.SizeConfig(widths=(5,)))
    assert not any((tmp_path / "widths").iterdir()), "the same folder is free for the right widths"


def test_a_line_of_one_point_is_seen():
    sheet = panels([Panel("", {"one": Line([1], [0.5])}, ([1], [0.1]), floor=1e-3)], x="k", y="overlap")
    assert sheet.axes[0].lines[0].get_marker() == "o"


def test_the_page_says_where_overlap_is_below_chance():
    assert "above chance at every k" in mnist16_overlap._against_chance([0.2, 0.3], [0.1, 0.2])
    assert "below at k = 2" in mnist16_overlap._against_chance([0.2, 0.1], [0.1, 0.2])
