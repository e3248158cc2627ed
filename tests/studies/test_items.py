"""What a study announces, read from a text; what its sections name, against it, without running it."""

import ast
from pathlib import Path

import pytest

from curvscope import studies
from curvscope.studies import STUDIES
from curvscope.studies.engine import items


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("figure 1 (left), figure 14", {"figure 1 (left)", "figure 14"}),
        ("figures 2 and 8 to 10", {"figure 2", "figure 8", "figure 9", "figure 10"}),
        ("algorithm 3, figures 5-7, table 2", {"algorithm 3", "figure 5", "figure 6", "figure 7", "table 2"}),
        ("figure 15 (parameters, top, bottom)", {f"figure 15 ({part})" for part in ("parameters", "top", "bottom")}),
        ("A paper 2017: equations 3-5; another 2016: figure 8", {f"equation {i}" for i in (3, 4, 5)} | {"figure 8"}),
        ("what the paper left open", set()),
    ],
)
def test_items_of_a_text(text, expected):
    assert items(text) == expected


def named(folder: Path) -> dict[str, set[str]]:
    """What the sections of each module name: the texts given as ``shows=``, or as the last argument of a ``..._section``."""
    found = {}
    for file in folder.rglob("*.py"):
        texts = []
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            texts += [each.value for each in node.keywords if each.arg == "shows"]
            if getattr(node.func, "id", "").endswith("_section") and node.args:
                texts.append(node.args[-1])
        found[file.stem] = set().union(
            *(items(t.value) for t in texts if isinstance(t, ast.Constant) and isinstance(t.value, str))
        )
    return found


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_contains_what_it_announces(name):
    """Sections are named in the study's own modules; the pages of runs are compared in ``test_studies``."""
    own = named(Path(studies.__file__).parent)
    pages = {
        "mnist16-crystallization": ("_mnist16_crystallization", "_crystallization_more"),
        "overlap-at-scale": ("_overlap_at_scale_page",),
        "beyond": ("_beyond_page",),
        "masked-perturbations": ("_perturbations",),
        "sagun-batch": ("_sagun_batch_page",),
    }
    modules = pages.get(name, (f"_{name.replace('-', '_')}",))
    assert set().union(*(own[module] for module in modules)) == items(STUDIES[name].shows)
