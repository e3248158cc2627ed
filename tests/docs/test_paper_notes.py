"""Numbers of the page "Notes on the paper" are those that its script computes from the published values."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def load():
    spec = importlib.util.spec_from_file_location("paper_notes", DOCS / "paper_notes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_quotes_what_the_script_computes():
    notes, page = load(), (DOCS / "notes-on-the-paper.md").read_text()
    ratios, later = notes.largest_ratios(), notes.ratios_at_100()
    quoted = [
        f"{ratios['k <= 5']:.0f} at k <= 5",
        f"{ratios['k = 7 to 30']:.0f} at k = 7",
        f"{ratios['k >= 50']:.0f} from k = 50",
    ]
    quoted += [f"{later['mnist16, step 1000']:.2f} for `mnist16`", f"{later['3c3d, step 8000']:.1f} for 3c3d"]
    shifted, small = notes.off_by_one(), notes.small_k()
    quoted += [f"{shifted['k = 10']:.2f} times the overlap at k = 10", f"{shifted['k = 100']:.2f} times at k = 100"]
    quoted += [f"{small['k = 5']:.2f} of chance", f"{small['k = 10']:.2f} at k = 10", f"{small['k = 50']:.2f} at k = 50"]
    sketch = notes.sketch_error()
    quoted.append(f"{sketch['step 100, smallest']:.2f} to {sketch['step 0, largest']:.2f}")
    assert [text for text in quoted if text not in page] == []
    assert max(abs(sketch[f"step {step}, {end}"] - 1) for step in (100, 1000) for end in ("smallest", "largest")) < 0.09


def test_stages_of_figure_18_do_not_add_up():
    from curvscope.studies.engine import published

    minutes = published("runtimes")["fig18_minutes"]
    assert sum(own["cifar10"] for stage, own in minutes.items() if stage != "TOTAL") == 35.5
    assert minutes["TOTAL"]["cifar10"] == 97
