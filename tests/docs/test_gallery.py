"""What the site shows of the examples is there, small, and of examples that exist."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
RENDERED = ROOT / "docs" / "examples"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_shown(path):
    again = f"run `python docs/render_examples.py {path.stem}`"
    assert (RENDERED / f"{path.stem}.txt").exists(), again
    assert (RENDERED / f"{path.stem}.png").exists() == ("savefig" in path.read_text()), again


def test_nothing_else_is_kept_and_nothing_large():
    kept = list(RENDERED.iterdir())
    assert {file.stem for file in kept} == {path.stem for path in EXAMPLES}
    assert max(file.stat().st_size for file in kept) < 100_000
