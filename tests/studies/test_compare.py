"""Studies side by side: from numbers alone, in the order of their sizes; what cannot be compared is named."""

import json
from pathlib import Path

import pytest

from curvscope.errors import InvalidArgument, RunConflict, RunNotFound
from curvscope.studies import compare_studies


def written(folder: Path, study: str, problem: str | None, size: int, k: int = 12) -> Path:
    value = [0.01 * i for i in range(1, k + 1)]
    own = {"size": size, "overlap": {"value": value, "lower": [0.9 * v for v in value], "upper": [1.1 * v for v in value]}}
    own["null_layered"] = {"mean": [0.005 * i for i in range(1, k + 1)]}
    config = {"steps": [0, 5], "splits": ["train"], **({"problem": problem} if problem else {})}
    numbers = {"study": study, "preset": "quick", "config": config, "checkpoints": {"0 train": own, "5 train": own}}
    folder.mkdir()
    (folder / "numbers.json").write_text(json.dumps(numbers))
    return folder


@pytest.fixture
def runs(tmp_path):
    large = written(tmp_path / "large", "overlap-at-scale", "cifar10_3c3d", 895_210)
    return [large, written(tmp_path / "small", "mnist16-overlap", None, 7030)]


@pytest.mark.slow  # 17 s of figures; the next test draws fewer
def test_problems_side_by_side(runs, tmp_path):
    document = compare_studies(runs, tmp_path / "page")
    assert (tmp_path / "page" / "report.html").exists()
    assert len(list((tmp_path / "page" / "figures").glob("*.pdf"))) == 2
    table = document.sections[-1].table
    assert [row[:4] for row in table.rows] == [
        [name, size, "5", k] for name, size in (("mnist16", "7,030"), ("cifar10_3c3d", "895,210")) for k in ("10", "12")
    ]
    assert [row[6:] for row in table.rows[:2]] == [["70.30", "2.00"]] * 2  # 0.1 over 10 / 7030, and over 0.05
    assert len(document.sections[0].figure.axes) == 2
    compare_studies(runs, tmp_path / "page")  # again, in its place


def test_two_runs_of_one_problem_are_told_apart_by_folder(tmp_path):
    runs = [written(tmp_path / name, "mnist16-overlap", None, 7030) for name in ("one", "two")]
    table = compare_studies(runs, tmp_path / "page").sections[-1].table
    assert {row[0] for row in table.rows} == {"mnist16, one", "mnist16, two"}


def test_what_cannot_be_compared_is_named(runs, tmp_path):
    with pytest.raises(InvalidArgument, match="at least two"):
        compare_studies(runs[:1], tmp_path / "page")
    with pytest.raises(RunNotFound, match=r"has no numbers\.json"):
        compare_studies([runs[0], tmp_path], tmp_path / "page")
    with pytest.raises(InvalidArgument, match="of the study 'runtimes'"):
        compare_studies([runs[0], written(tmp_path / "other", "runtimes", None, 3)], tmp_path / "page")
    with pytest.raises(RunConflict, match="is not empty"):
        compare_studies(runs, runs[0])
    (tmp_path / "file").write_text("taken")
    with pytest.raises(RunConflict, match="is a file"):
        compare_studies(runs, tmp_path / "file")
    assert not (tmp_path / "page").exists()
